#!lua flags=allow-oom
-- admin_limit_names: the limits that hold jobs back, are held themselves, or were changed: at most 1,000 of each. Changes nothing.
-- keys: meta jobs
-- ARGV[1] layout
-- returns names
-- include: record
-- include: ties
local q = queue_at(1)
local names, seen = {}, {}
local function add(found)
  for i = 1, #found do
    if not seen[found[i]] then names[#names + 1], seen[found[i]] = found[i], true end
  end
end
add(redis.call('ZRANGE', key_of(q, 'gates'), 0, 999))
add(redis.call('ZRANGE', key_of(q, 'holds'), 0, 999))
local changed = redis.call('HSCAN', key_of(q, 'limits'), '0', 'COUNT', 1000)[2]
for i = 1, #changed, 2 do add({changed[i]}) end
-- Those whose slots are all taken have no gate: their names are with the jobs that wait.
local parked = redis.call('ZRANGE', key_of(q, 'parked'), 0, 999)
local ties = #parked > 0 and redis.call('HMGET', key_of(q, 'ties'), unpack(parked)) or {}
for i = 1, #parked do
  for _, limit in ipairs(ties[i] and cmsgpack.unpack(ties[i]).l or {}) do add({limit.n}) end
end
return names
