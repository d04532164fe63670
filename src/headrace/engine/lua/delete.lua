#!lua flags=allow-oom
-- delete: remove a job that is not running, wherever it is. LREM reads the whole ready list: rare by intent.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta stats watched cancels progress lingering ties
-- ARGV[1] layout  [2] job id  [3..] the sessions whose held sets follow the queue's keys
-- returns deleted | running | again
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: kept
-- include: edges
-- include: index
local q = queue_at(1)
local id = ARGV[2]
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local record = redis.call('HGET', q.jobs, id)
if not record then return redis.error_reply('NOJOB ' .. id) end
if redis.call('ZCARD', q.sessions) ~= #ARGV - 2 then return 'again' end
for i = 3, #ARGV do
  if not redis.call('ZSCORE', q.sessions, ARGV[i]) then return 'again' end
end
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[KEYS_PER_QUEUE + i - 2], id) == 1 then return 'running' end
end
if redis.call('SREM', q.lingering, id) == 1 or state_of(record) == LIVE then
  redis.call('LREM', q.ready, 0, id)
  redis.call('LREM', q.suspects, 0, id)
end
local ties = ties_of(q, id)
if ties then
  take_out(q, id, ties)
  untie(q, id, ties, state_of(record) == LIVE and with_state(record, CANCELLED))
  follow(q)
  redis.call('DEL', key_of(q, 'inputs:' .. id), key_of(q, 'expects:' .. id))
end
for _, key in ipairs({q.priority, q.delayed, q.done, q.dead}) do redis.call('ZREM', key, id) end
for _, key in ipairs({q.jobs, q.crashes, q.progress}) do redis.call('HDEL', key, id) end
redis.call('SREM', q.cancels, id)
forget_kept(q, {id})
if is_indexed(q) then index_drop(q, {id}) end
redis.call('DEL', key_of(q, 'saved:' .. id))
local tokens = redis.call('HGET', q.watched, id)
redis.call('HDEL', q.watched, id)
close_kept(q, id, tokens or '', '')
for waiter in string.gmatch(tokens or '', 'w:(%S+)') do
  local key = string.sub(q.jobs, 1, -5) .. 'waiter:' .. waiter
  redis.call('RPUSH', key, '')
  redis.call('PEXPIRE', key, 60000)
end
redis.call('HINCRBY', q.stats, state_of(record) == LIVE and 'deleted' or 'forgotten', 1)
return 'deleted'
