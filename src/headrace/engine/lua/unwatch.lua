#!lua flags=allow-oom
-- unwatch: this waiter has given up.
-- keys: watched
-- ARGV[1] layout  [2] job id  [3] waiter
local q = queue_at(1)
local tokens = redis.call('HGET', q.watched, ARGV[2])
if not tokens then return 0 end
local rest = {}
for token in string.gmatch(tokens, '%S+') do
  if token ~= 'w:' .. ARGV[3] then rest[#rest + 1] = token end
end
if #rest == 0 then
  redis.call('HDEL', q.watched, ARGV[2])
else
  redis.call('HSET', q.watched, ARGV[2], table.concat(rest, ' '))
end
return 1
