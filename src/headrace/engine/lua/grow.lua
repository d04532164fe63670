#!lua flags=allow-oom
-- grow: begin, or end, adding a part to a flow that runs; only for who still holds the job that adds it.
-- keys: jobs meta stats held
-- ARGV[1] layout  [2] id of the job that adds it  [3] flow id  [4] part id  [5] what is kept of the part (msgpack): begin; '': end
--   [6] parts that may be added to a flow in this queue  [7..] the letters that let its first jobs start
-- returns done | stale (another run has the job) | was_added | clearing (what an earlier run left is being taken away) | full
-- include: record
-- include: ties
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
if redis.call('SISMEMBER', q.held, ARGV[2]) == 0 then return 'stale' end
local grown, growing = key_of(q, 'grown:' .. ARGV[3]), key_of(q, 'growing')
local found = redis.call('HGET', grown, ARGV[4])
if found then return found == '' and 'clearing' or 'was_added' end
if ARGV[5] ~= '' then
  if redis.call('HLEN', grown) >= tonumber(ARGV[6]) then return 'full' end
  redis.call('HSET', growing, ARGV[4], ARGV[5])
  redis.call('ZADD', key_of(q, 'incomplete'), 'NX', now(), ARGV[4])
  return 'done'
end
redis.call('HSET', grown, ARGV[4], redis.call('HGET', growing, ARGV[4]))
redis.call('PEXPIRE', grown, 30 * DAY_MS)
redis.call('HDEL', growing, ARGV[4])
redis.call('ZREM', key_of(q, 'incomplete'), ARGV[4])
redis.call('RPUSH', key_of(q, 'outbox'), unpack(ARGV, 7))
return 'done'
