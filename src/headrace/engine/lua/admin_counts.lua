#!lua flags=allow-oom
-- admin_counts: how many jobs stand where in a queue, and its totals, at one instant. Changes nothing.
-- keys: jobs ready priority delayed sessions suspects done dead meta stats
-- ARGV[1] layout
-- returns {server ms, records, ready, priority, delayed, suspects, done, dead, paused, paused_at, sessions and lease ends, stats, parked, max running, max length, overflow, waiting, ageing, paused until, lingering}
-- include: record
local q = queue_at(1)
local pause = redis.call('HMGET', q.meta, 'layout', 'paused', 'paused_at', 'max_running', 'max_length', 'overflow', 'ageing', 'paused_until')
local wrong = layout_error(pause[1])
if wrong then return wrong end
if pause[8] and tonumber(pause[8]) <= now() then pause[2], pause[3], pause[8] = false, false, false end -- the next tend says so
return {
  string.format('%.0f', now()), redis.call('HLEN', q.jobs), redis.call('LLEN', q.ready), redis.call('ZCARD', q.priority),
  redis.call('ZCARD', q.delayed), redis.call('LLEN', q.suspects), redis.call('ZCARD', q.done), redis.call('ZCARD', q.dead),
  pause[2], pause[3], redis.call('ZRANGE', q.sessions, 0, -1, 'WITHSCORES'), redis.call('HGETALL', q.stats),
  redis.call('ZCARD', string.sub(q.jobs, 1, -5) .. 'parked'), pause[4], pause[5], pause[6],
  redis.call('HLEN', string.sub(q.jobs, 1, -5) .. 'waiting'), pause[7], pause[8],
  redis.call('SCARD', string.sub(q.jobs, 1, -5) .. 'lingering'),
}
