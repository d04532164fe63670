#!lua flags=allow-oom
-- save: keep the checkpoint of a job that this session holds; a tie leads the next claim to it, and frees it at the job's end.
-- keys: jobs ties held
-- ARGV[1] layout  [2] job id  [3] state
-- returns 1, or 0 when the job is not this session's any more
-- include: record
-- include: ties
local q = queue_at(1)
if redis.call('SISMEMBER', q.held, ARGV[2]) == 0 then return 0 end
local ties = ties_of(q, ARGV[2]) or {}
if not ties.v then
  ties.v = true
  redis.call('HSET', q.ties, ARGV[2], cmsgpack.pack(ties))
end
redis.call('HSET', key_of(q, 'saved:' .. ARGV[2]), 'state', ARGV[3])
return 1
