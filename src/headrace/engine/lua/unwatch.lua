#!lua flags=allow-oom
-- unwatch: this waiter has given up; the ended record all the same, if the job has ended just now, or untold.
-- keys: jobs watched
-- ARGV[1] layout  [2] job id  [3] waiter
-- include: record
local q = queue_at(1)
local record = redis.call('HGET', q.jobs, ARGV[2])
if record and state_of(record) ~= LIVE then return record end
local tokens = redis.call('HGET', q.watched, ARGV[2])
if not tokens then return false end
local rest = {}
for token in string.gmatch(tokens, '%S+') do
  if token ~= 'w:' .. ARGV[3] then rest[#rest + 1] = token end
end
if #rest == 0 then
  redis.call('HDEL', q.watched, ARGV[2])
else
  redis.call('HSET', q.watched, ARGV[2], table.concat(rest, ' '))
end
return false
