#!lua flags=allow-oom
-- admin_pause: stop a queue's claims, with a reason, for so long or for good; or let them go on, and wake a consumer.
-- keys: jobs meta wake ties
-- ARGV[1] layout  [2] reason; '' resumes  [3] for how many ms; 0: until it is resumed
-- returns 1, or 0 when it was so already (a new reason is still noted)
-- include: record
-- include: ties
-- include: place
local q = queue_at(1)
local found = redis.call('HMGET', q.meta, 'layout', 'paused')
local wrong = layout_error(found[1])
if wrong then return wrong end
if ARGV[2] == '' then
  redis.call('HDEL', q.meta, 'paused', 'paused_at', 'paused_until')
  ring(q)
  return found[2] and 1 or 0
end
redis.call('HSET', q.meta, 'layout', ARGV[1], 'paused', ARGV[2])
if not found[2] then redis.call('HSET', q.meta, 'paused_at', string.format('%.0f', now())) end
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', q.meta, 'paused_until', string.format('%.0f', now() + ARGV[3]))
else
  redis.call('HDEL', q.meta, 'paused_until')
end
return found[2] and 0 or 1
