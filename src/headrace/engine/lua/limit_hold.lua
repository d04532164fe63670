#!lua flags=allow-oom
-- limit_hold: shut a limit for a while (a service said Retry-After), or give back what a job took of its rate.
-- keys: meta jobs
-- ARGV[1] layout  [2] name  [3] ms to stay shut  [4] ms of its rate to give back
-- returns 1
-- include: record
-- include: ties
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
if tonumber(ARGV[3]) > 0 then redis.call('ZADD', key_of(q, 'holds'), 'GT', now() + ARGV[3], ARGV[2]) end
local at = tonumber(ARGV[4]) > 0 and redis.call('HGET', key_of(q, 'rates'), ARGV[2])
if at then
  redis.call('HSET', key_of(q, 'rates'), ARGV[2], string.format('%.3f', at - ARGV[4]))
  if redis.call('EXISTS', key_of(q, 'parked:' .. ARGV[2])) == 1 then
    redis.call('ZADD', key_of(q, 'gates'), 0, ARGV[2])
    redis.call('ZADD', key_of(q, 'wake'), 0, '1')
  end
end
return 1
