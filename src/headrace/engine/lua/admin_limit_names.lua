#!lua flags=allow-oom
-- admin_limit_names: the limits that running jobs use, that hold jobs back, are held themselves, or were changed: at most 1,000 of each. Changes nothing.
-- keys: meta jobs
-- ARGV[1] layout
-- returns {names, for each: what a job that uses it says of it (a msgpack map), "" where none was met}
-- include: record
-- include: ties
local q = queue_at(1)
local names, seen, said = {}, {}, {}
local function add(found)
  for i = 1, #found do
    if not seen[found[i]] then names[#names + 1], seen[found[i]] = found[i], true end
  end
end
add(redis.call('ZRANGE', key_of(q, 'gates'), 0, 999))
add(redis.call('ZRANGE', key_of(q, 'holds'), 0, 999))
local changed = redis.call('HSCAN', key_of(q, 'limits'), '0', 'COUNT', 1000)[2]
for i = 1, #changed, 2 do add({changed[i]}) end
local used = redis.call('HSCAN', key_of(q, 'rates'), '0', 'COUNT', 1000)[2]
for i = 1, #used, 2 do
  if tonumber(used[i + 1]) > now() then add({used[i]}) end
end
-- Those whose slots are all taken have no gate: their names are with the jobs that wait.
local parked = redis.call('ZRANGE', key_of(q, 'parked'), 0, 999)
local function add_those_of(ids)
  local ties = #ids > 0 and redis.call('HMGET', key_of(q, 'ties'), unpack(ids)) or {}
  for i = 1, #ids do
    for _, limit in ipairs(ties[i] and cmsgpack.unpack(ties[i]).l or {}) do add({limit.n}) said[limit.n] = cmsgpack.pack(limit) end
  end
end
add_those_of(parked)
if redis.call('EXISTS', key_of(q, 'ties')) == 1 then
  for _, session in ipairs(redis.call('ZRANGE', key_of(q, 'sessions'), 0, 99)) do
    add_those_of(redis.call('SRANDMEMBER', key_of(q, 'held:' .. session), 100))
  end
end
for i = 1, #names do said[i] = said[names[i]] or '' end
return {names, said}
