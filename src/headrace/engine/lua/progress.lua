#!lua flags=allow-oom
-- progress: keep how far a live job is.
-- keys: jobs watched cancels progress
-- ARGV[1] layout  [2] job id  [3] session  [4] its next name, which it has if it was adopted just now  [5] progress
-- returns 1 when the job was asked to stop, or is not this session's any more
-- include: record
-- include: ties
-- include: kept
local q = queue_at(1)
local record = redis.call('HGET', q.jobs, ARGV[2])
if not record or state_of(record) ~= LIVE or not is_held_by(q, ARGV[2], ARGV[3], ARGV[4]) then return 1 end
redis.call('HSET', q.progress, ARGV[2], ARGV[5])
add_token(q, ARGV[2], 'p')
return redis.call('SISMEMBER', q.cancels, ARGV[2])
