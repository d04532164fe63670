#!lua flags=allow-oom
-- requeue: an ended job waits again, with the record given.
-- keys: jobs ready priority delayed done dead meta wake stats crashes lingering ties unique watched
-- ARGV[1] layout  [2] job id  [3] the ended record as it was read  [4] the new record  [5] its ties, '' for none
-- returns 1, 0 when the job has changed since, or the id of the job that has its unique key now
-- include: record
-- include: ties
-- include: place
-- include: kept
-- include: index
local q = queue_at(1)
local id = ARGV[2]
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
if redis.call('HGET', q.jobs, id) ~= ARGV[3] then return 0 end
local ties = ARGV[5] ~= '' and cmsgpack.unpack(ARGV[5])
if ties and ties.u and not ties.m then
  local owner = redis.call('HGET', q.unique, ties.u)
  if owner and owner ~= id then return owner end
  redis.call('HSET', q.unique, ties.u, id)
end
-- A job cancelled while it was ready may still have its old entry: it must not run twice.
if redis.call('SREM', q.lingering, id) == 1 then redis.call('LREM', q.ready, 0, id) end
redis.call('ZREM', q.done, id)
redis.call('ZREM', q.dead, id)
redis.call('HDEL', q.crashes, id)
redis.call('HSET', q.jobs, id, ARGV[4])
if is_indexed(q) then index_again(q, {id}, {ARGV[4]}) end
if redis.call('HEXISTS', key_of(q, 'kept'), id) == 1 then add_token(q, id, 'k') end
if ties then
  redis.call('HSET', q.ties, id, ARGV[5])
  weigh(q, ties)
end
if redis.call('PERSIST', key_of(q, 'saved:' .. id)) == 1 then
  local with_saved = ties or {}
  with_saved.v = true
  redis.call('HSET', q.ties, id, cmsgpack.pack(with_saved))
  weigh(q, with_saved)
end
local missing = ties and ties.p and ties.p - redis.call('HLEN', key_of(q, 'inputs:' .. id)) or 0
if ties and ties.p then
  for _, inputs in ipairs(redis.call('HVALS', key_of(q, 'expects:' .. id))) do missing = missing + inputs end
  redis.call('PERSIST', key_of(q, 'inputs:' .. id))
  redis.call('PERSIST', key_of(q, 'expects:' .. id))
end
if missing > 0 then
  redis.call('HSET', key_of(q, 'waiting'), id, missing)
  if ties.x then redis.call('ZADD', key_of(q, 'timeouts'), now() + ties.x, id) end
else
  put_back(q, {id}, {ARGV[4]})
end
redis.call('HINCRBY', q.stats, 'requeued', 1)
ring(q)
return 1
