#!lua flags=allow-oom
-- look: one job's record and what stands beside it. Changes nothing.
-- keys: jobs delayed sessions progress crashes ties
-- ARGV[1] layout  [2] job id
-- returns {record, due ms, progress, crashes, sessions, the limit it waits for, when that opens, inputs missing} or {}
-- include: record
-- include: ties
local q = queue_at(1)
local id = ARGV[2]
local record = redis.call('HGET', q.jobs, id)
if not record then return {} end
local is_live = state_of(record) == LIVE
local ties, limit = ties_of(q, id), nil
for _, one in ipairs(ties and ties.l or {}) do
  if redis.call('ZSCORE', key_of(q, 'parked:' .. one.n), id) then limit = one.n end
end
return {
  record, redis.call('ZSCORE', q.delayed, id), redis.call('HGET', q.progress, id), redis.call('HGET', q.crashes, id),
  is_live and redis.call('ZRANGE', q.sessions, 0, -1) or {}, limit or '', limit and redis.call('ZSCORE', key_of(q, 'gates'), limit) or false,
  redis.call('HGET', key_of(q, 'waiting'), id),
}
