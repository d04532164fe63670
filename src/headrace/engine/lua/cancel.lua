#!lua flags=allow-oom
-- cancel: a waiting job ends at once; a running one's worker is told. A ready entry lingers until a claim meets it.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta wake stats watched cancels progress lingering ties
-- ARGV[1] layout  [2] job id  [3..] the sessions whose held sets follow the queue's keys
-- returns cancelled | asked | ended | again (the sessions have changed: look again)
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: edges
local q = queue_at(1)
local id = ARGV[2]
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local record = redis.call('HGET', q.jobs, id)
if not record then return redis.error_reply('NOJOB ' .. id) end
if state_of(record) ~= LIVE then return 'ended' end
if redis.call('ZCARD', q.sessions) ~= #ARGV - 2 then return 'again' end
for i = 3, #ARGV do
  if not redis.call('ZSCORE', q.sessions, ARGV[i]) then return 'again' end
end
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[KEYS_PER_QUEUE + i - 2], id) == 1 then
    redis.call('SADD', q.cancels, id)
    local tokens = redis.call('HGET', q.watched, id)
    if not tokens or not string.find(tokens, '%f[%w]c%f[%W]') then
      redis.call('HSET', q.watched, id, tokens and tokens .. ' c' or 'c')
    end
    return 'asked'
  end
end
local found = redis.call('LREM', q.suspects, 0, id) + redis.call('ZREM', q.delayed, id) + redis.call('ZREM', q.priority, id)
local ties = found == 0 and ties_of(q, id)
if ties then found = take_out(q, id, ties) end
if found == 0 then redis.call('SADD', q.lingering, id) end
redis.call('HDEL', q.crashes, id)
finish(q, id, with_state(record, CANCELLED), q.done, now() + DAY_MS, 'cancelled')
follow(q)
return 'cancelled'
