#!lua flags=allow-oom
-- admin_limit_look: limits as they stand. Changes nothing.
-- keys: meta jobs
-- ARGV[1] layout  [2..] names
-- returns {server ms, {what was set, by name}, for each name: held until, running, parked, looked at again, when its bucket is empty}
-- include: record
-- include: ties
local q = queue_at(1)
local reply = {string.format('%.0f', now()), redis.call('HGETALL', key_of(q, 'limits'))}
for i = 2, #ARGV do
  local name = ARGV[i]
  reply[i + 1] = {
    redis.call('ZSCORE', key_of(q, 'holds'), name),
    redis.call('SCARD', key_of(q, 'slots:' .. name)), redis.call('ZCARD', key_of(q, 'parked:' .. name)),
    redis.call('ZSCORE', key_of(q, 'gates'), name), redis.call('HGET', key_of(q, 'rates'), name),
  }
end
return reply
