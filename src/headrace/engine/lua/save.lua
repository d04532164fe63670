#!lua flags=allow-oom
-- save: keep the checkpoint of a job that this run holds; a tie leads the next claim to it, and frees it at the job's end.
-- keys: jobs meta watched ties
-- ARGV[1] layout  [2] job id  [3] session  [4] its next name, which it has if it was adopted just now  [5] fence  [6] state
-- returns 1, or 0 when the job is not this run's any more
-- include: record
-- include: ties
-- include: kept
local q = queue_at(1)
local id, saved = ARGV[2], key_of(q, 'saved:' .. ARGV[2])
if not is_held_by(q, id, ARGV[3], ARGV[4]) then return 0 end
local ties = ties_of(q, id) or {}
-- What stands there without a tie is of an earlier job of this id.
local last = ties.v and redis.call('HGET', saved, 'fence')
if last and tonumber(last) > tonumber(ARGV[5]) then return 0 end
if not ties.v then
  ties.v = true
  redis.call('HSET', q.ties, id, cmsgpack.pack(ties))
  weigh(q, ties)
end
redis.call('HSET', saved, 'state', ARGV[6], 'fence', ARGV[5])
return 1
