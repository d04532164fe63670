#!lua flags=allow-oom
-- progress: keep how far a live job is.
-- keys: jobs watched cancels progress held
-- ARGV[1] layout  [2] job id  [3] progress
-- returns 1 when the job was asked to stop, or is not this session's any more
-- include: record
local q = queue_at(1)
local record = redis.call('HGET', q.jobs, ARGV[2])
if not record or state_of(record) ~= LIVE or redis.call('SISMEMBER', q.held, ARGV[2]) == 0 then return 1 end
redis.call('HSET', q.progress, ARGV[2], ARGV[3])
local tokens = redis.call('HGET', q.watched, ARGV[2])
if not tokens then
  redis.call('HSET', q.watched, ARGV[2], 'p')
elseif not string.find(tokens, '%f[%w]p%f[%W]') then
  redis.call('HSET', q.watched, ARGV[2], tokens .. ' p')
end
return redis.call('SISMEMBER', q.cancels, ARGV[2])
