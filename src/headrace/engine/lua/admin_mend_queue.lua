#!lua flags=allow-oom
-- admin_mend_queue: make whole what belongs to no single job; each thing is looked at again before it is touched.
-- keys: jobs sessions meta unique
-- ARGV[1] layout  [2] how many sessions follow  [3..] those whose held sets may be without an owner, then unique key, id of each
-- returns 1
-- include: record
-- include: ties
-- include: ending
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local now_ms, now_us = now()
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
if not tonumber(redis.call('HGET', q.meta, 'fence') or '') then
  redis.call('HSET', q.meta, 'fence', string.format('%.0f', now_us))
end
local named = tonumber(ARGV[2])
for i = 3, named + 2 do
  if not redis.call('ZSCORE', q.sessions, ARGV[i]) then redis.call('DEL', base_of(q) .. 'held:' .. ARGV[i]) end
end
for i = named + 3, #ARGV, 2 do
  local record = redis.call('HGET', q.jobs, ARGV[i + 1])
  local is_live = record and state_of(record) == LIVE
  if not is_live and redis.call('HGET', q.unique, ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', q.unique, ARGV[i]) end
end
-- A lease is seconds long. One that ends in more than a day would keep its jobs for ever; a living owner renews it.
for _, session in ipairs(redis.call('ZRANGEBYSCORE', q.sessions, '(' .. now_ms + DAY_MS, '+inf', 'LIMIT', 0, 256)) do
  redis.call('ZADD', q.sessions, 'XX', now_ms + 60000, session)
end
return 1
