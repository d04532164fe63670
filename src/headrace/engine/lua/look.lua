#!lua flags=allow-oom
-- look: one job's record and what stands beside it. Changes nothing.
-- keys: jobs delayed sessions progress crashes
-- ARGV[1] layout  [2] job id
-- returns {record, due ms, progress, crashes, sessions} or {}
-- include: record
local q = queue_at(1)
local id = ARGV[2]
local record = redis.call('HGET', q.jobs, id)
if not record then return {} end
local is_live = state_of(record) == LIVE
return {
  record, redis.call('ZSCORE', q.delayed, id), redis.call('HGET', q.progress, id), redis.call('HGET', q.crashes, id),
  is_live and redis.call('ZRANGE', q.sessions, 0, -1) or {},
}
