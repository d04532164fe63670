#!lua flags=allow-oom
-- flow_put: note a flow in its home queue; `is_whole`: all its jobs are stored.
-- keys: meta jobs
-- ARGV[1] layout  [2] flow id  [3] its graph (msgpack), or '' when it is noted already  [4] is whole (0/1)
-- returns 1
-- include: record
-- include: ties
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
if ARGV[3] ~= '' then
  -- Those of more than 30 days ago: bounded, and each new flow takes away more than it brings.
  local old = redis.call('ZRANGEBYSCORE', key_of(q, 'flows'), '-inf', now() - 30 * DAY_MS, 'LIMIT', 0, 16)
  if #old > 0 then
    redis.call('ZREM', key_of(q, 'flows'), unpack(old))
    redis.call('HDEL', key_of(q, 'graphs'), unpack(old))
  end
  redis.call('HSET', key_of(q, 'graphs'), ARGV[2], ARGV[3])
  redis.call('ZADD', key_of(q, 'flows'), 'NX', now(), ARGV[2])
end
if ARGV[4] == '1' then redis.call('ZREM', key_of(q, 'incomplete'), ARGV[2]) else redis.call('ZADD', key_of(q, 'incomplete'), 'NX', now(), ARGV[2]) end
return 1
