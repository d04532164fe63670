#!lua flags=allow-oom
-- adopt: a new session takes over all that an old one of the same consumer holds, also when replies were lost.
-- keys: jobs sessions crashes meta held adopted
-- ARGV[1] layout  [2] new session  [3] old session  [4] lease ms          (held is the new session's set, adopted the old one's)
-- returns {fence, ids, records, crash counts or false}
-- include: record
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local now_ms, now_us = now()
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
redis.call('ZREM', q.sessions, ARGV[3])
redis.call('ZADD', q.sessions, now_ms + ARGV[4], ARGV[2])
if redis.call('EXISTS', q.adopted) == 1 then
  redis.call('SUNIONSTORE', q.held, q.held, q.adopted)
  redis.call('DEL', q.adopted)
end
local ids = redis.call('SMEMBERS', q.held)
if #ids == 0 then return {'0', {}, {}, {}} end
table.sort(ids)
local fence = string.format('%.0f', math.max((tonumber(redis.call('HGET', q.meta, 'fence')) or 0) + 1, now_us))
redis.call('HSET', q.meta, 'fence', fence)
return {fence, ids, redis.call('HMGET', q.jobs, unpack(ids)), redis.call('HMGET', q.crashes, unpack(ids))}
