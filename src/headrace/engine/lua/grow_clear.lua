#!lua flags=allow-oom
-- grow_clear: take away a part of a flow whose job ended before all of it was stored: begin, drop its jobs, end.
-- keys: jobs meta stats ties
-- ARGV[1] layout  [2] begin | drop | end  [3] id of the job that added it  [4] flow id  [5] part id  [6..] drop: ids of its jobs in this queue, which all wait
-- returns 1, or 0 when there is nothing to clear: the part is whole, or its job may still store it
-- include: record
-- include: ties
-- include: index
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local grown, growing, incomplete = key_of(q, 'grown:' .. ARGV[4]), key_of(q, 'growing'), key_of(q, 'incomplete')
if ARGV[2] == 'begin' then
  local found, adder = redis.call('HGET', grown, ARGV[5]), redis.call('HGET', q.jobs, ARGV[3])
  -- Whoever else comes looks again in a while: so one clears at a time, and another does if that one dies.
  redis.call('ZADD', incomplete, 'XX', now(), ARGV[5])
  if found == '' then return 1 end
  if found then
    redis.call('ZREM', incomplete, ARGV[5])
    return 0
  end
  if adder and state_of(adder) == LIVE then return 0 end
  redis.call('HSET', grown, ARGV[5], '')
  redis.call('PEXPIRE', grown, 30 * DAY_MS)
  return 1
elseif ARGV[2] == 'end' then
  redis.call('HDEL', grown, ARGV[5])
  redis.call('HDEL', growing, ARGV[5])
  redis.call('ZREM', incomplete, ARGV[5])
  return 1
end
for i = 6, #ARGV do
  local id = ARGV[i]
  if redis.call('HDEL', key_of(q, 'waiting'), id) == 1 then
    redis.call('HDEL', q.jobs, id)
    if is_indexed(q) then index_drop(q, {id}) end
    redis.call('HDEL', q.ties, id)
    redis.call('DEL', key_of(q, 'inputs:' .. id), key_of(q, 'expects:' .. id))
    redis.call('HINCRBY', q.stats, 'deleted', 1)
  end
end
return 1
