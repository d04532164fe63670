#!lua flags=allow-oom
-- admin_queue_set: bound a queue: fields of its meta hash. An empty value takes the bound away.
-- keys: meta wake
-- ARGV[1] layout  [2..] field, value, …: max_running, max_length, overflow
-- returns 1
-- include: record
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', q.meta, ARGV[i]) else redis.call('HSET', q.meta, ARGV[i], ARGV[i + 1]) end
end
redis.call('ZADD', q.wake, 0, '1')
return 1
