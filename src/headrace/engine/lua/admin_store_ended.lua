#!lua flags=allow-oom
-- admin_store_ended: keep jobs that ended elsewhere where such jobs are kept. Counted nowhere: no worker ran them here.
-- keys: jobs done dead meta producers
-- ARGV[1] layout  [2] producer  [3] number of this call  [4..] id, record, Unix ms until which it is kept, …
-- returns {} or, and then nothing is written, {'taken', ids…}
-- include: record
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local last = redis.call('HGET', q.producers, ARGV[2])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[3]) then return {} end
local taken = {'taken'}
for i = 4, #ARGV, 3 do
  if redis.call('HEXISTS', q.jobs, ARGV[i]) == 1 then taken[#taken + 1] = ARGV[i] end
end
if #taken > 1 then return taken end
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
for i = 4, #ARGV, 3 do
  redis.call('HSET', q.jobs, ARGV[i], ARGV[i + 1])
  redis.call('ZADD', state_of(ARGV[i + 1]) == FAILED and q.dead or q.done, ARGV[i + 2], ARGV[i])
end
redis.call('HSET', q.producers, ARGV[2], ARGV[3] .. ' ' .. redis.call('TIME')[1])
return {}
