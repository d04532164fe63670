#!lua flags=allow-oom
-- follow: tell who reads a job's stream (s) or lines (l) along when it ends; the ended record if it has ended.
-- keys: jobs watched
-- ARGV[1] layout  [2] job id  [3] s or l
-- returns the ended record, or false
-- include: record
-- include: ties
-- include: kept
local q = queue_at(1)
local record = redis.call('HGET', q.jobs, ARGV[2])
if not record then return redis.error_reply('NOJOB ' .. ARGV[2]) end
if state_of(record) ~= LIVE then return record end
add_token(q, ARGV[2], ARGV[3])
return false
