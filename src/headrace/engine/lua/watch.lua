#!lua flags=allow-oom
-- watch: the ended record, or be told when it ends.
-- keys: jobs watched
-- ARGV[1] layout  [2] job id  [3] waiter
-- include: record
local q = queue_at(1)
local record = redis.call('HGET', q.jobs, ARGV[2])
if not record then return redis.error_reply('NOJOB ' .. ARGV[2]) end
if state_of(record) ~= LIVE then return record end
local tokens = redis.call('HGET', q.watched, ARGV[2])
local token = 'w:' .. ARGV[3]
if not tokens then
  redis.call('HSET', q.watched, ARGV[2], token)
elseif not string.find(tokens, token, 1, true) then
  redis.call('HSET', q.watched, ARGV[2], tokens .. ' ' .. token)
end
return false
