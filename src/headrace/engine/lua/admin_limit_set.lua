#!lua flags=allow-oom
-- admin_limit_set: change what holds for a limit, whatever its jobs say; or let them say it again. Parked jobs are looked at anew.
-- keys: meta wake jobs
-- ARGV[1] layout  [2] name, or template  [3] a msgpack map {c most running, r jobs per p ms, b burst}, '' takes it back
-- returns 1
-- include: record
-- include: ties
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
local limits, gates = key_of(q, 'limits'), key_of(q, 'gates')
if ARGV[3] == '' then redis.call('HDEL', limits, ARGV[2]) else redis.call('HSET', limits, ARGV[2], ARGV[3]) end
if redis.call('EXISTS', key_of(q, 'parked:' .. ARGV[2])) == 1 then redis.call('ZADD', gates, 0, ARGV[2]) end
for _, name in ipairs(redis.call('ZRANGE', gates, 0, 999)) do redis.call('ZADD', gates, 0, name) end
redis.call('ZADD', q.wake, 0, '1')
return 1
