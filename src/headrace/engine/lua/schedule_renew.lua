#!lua flags=allow-oom
-- schedule_renew: a worker's code declares these schedules still.
-- keys: meta schedules schedule_specs schedule_leases
-- ARGV[1] layout  [2] ms for which that holds  [3..] name, digest of each
-- returns for each: held | missing | idle (not to be looked at) | other (code that is running declares something else)
--   | lapsed (code that is no longer running did)
-- include: record
-- include: schedule
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local now_ms = now()
local found = {}
for i = 3, #ARGV, 2 do
  local name, digest = ARGV[i], ARGV[i + 1]
  local entry = redis.call('HGET', q.schedule_specs, name)
  local state = 'held'
  redis.call('ZADD', q.schedule_leases, now_ms + ARGV[2], digest .. ' ' .. name)
  if not entry then
    state = 'missing'
  elseif digest_in(entry) ~= digest then
    local ends = redis.call('ZSCORE', q.schedule_leases, digest_in(entry) .. ' ' .. name)
    state = ends and tonumber(ends) > now_ms and 'other' or 'lapsed'
  elseif not redis.call('ZSCORE', q.schedules, name) then
    state = 'idle'
  end
  found[#found + 1] = state
end
redis.call('ZREMRANGEBYSCORE', q.schedule_leases, '-inf', now_ms - DAY_MS)
return found
