#!lua flags=allow-oom
-- schedule_look: entries of schedules, with when each must be looked at and until when its declaration holds. Changes nothing.
-- keys: meta schedules schedule_specs schedule_leases
-- ARGV[1] layout  [2] most of those that are due, or 0  [3..] else: names; none: all
-- returns {server ms, then for each that there is: name, entry, look at or false, lease end or false}
-- include: record
-- include: schedule
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local now_ms = now()
local names = {unpack(ARGV, 3)}
if tonumber(ARGV[2]) > 0 then
  names = redis.call('ZRANGEBYSCORE', q.schedules, '-inf', now_ms, 'LIMIT', 0, ARGV[2])
elseif #names == 0 then
  names = redis.call('HKEYS', q.schedule_specs)
end
local found = {string.format('%.0f', now_ms)}
for i = 1, #names do
  local entry = redis.call('HGET', q.schedule_specs, names[i])
  if entry then
    found[#found + 1] = names[i]
    found[#found + 1] = entry
    found[#found + 1] = redis.call('ZSCORE', q.schedules, names[i])
    found[#found + 1] = redis.call('ZSCORE', q.schedule_leases, digest_in(entry) .. ' ' .. names[i])
  end
end
return found
