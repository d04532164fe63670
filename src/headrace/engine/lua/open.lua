#!lua flags=allow-oom
-- open: begin a session in each queue; the only way a session comes to be, adopt aside.
-- keys: sessions meta
-- ARGV[1] layout  [2] session  [3] lease ms
-- include: record
for n = 1, #KEYS / KEYS_PER_QUEUE do
  local wrong = layout_error(redis.call('HGET', queue_at(n).meta, 'layout'))
  if wrong then return wrong end
end
local now_ms = now()
for n = 1, #KEYS / KEYS_PER_QUEUE do
  local q = queue_at(n)
  redis.call('HSETNX', q.meta, 'layout', ARGV[1])
  if tonumber(redis.call('HGET', q.meta, 'longest_lease') or 0) < tonumber(ARGV[3]) then
    redis.call('HSET', q.meta, 'longest_lease', ARGV[3])
  end
  redis.call('ZADD', q.sessions, now_ms + ARGV[3], ARGV[2])
end
return 1
