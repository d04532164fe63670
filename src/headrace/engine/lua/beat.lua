#!lua flags=allow-oom
-- beat: a worker shows that it is there, and hears the command an operator left for it, until it says that it took it.
-- ARGV[1] layout  [2] worker id  [3] info  [4] the command it took, or ''     KEYS[1] workers
-- returns the command, or false
-- include: record
redis.call('HSET', KEYS[1], ARGV[2], string.format('%.0f ', now()) .. ARGV[3])
local command = redis.call('HGET', KEYS[1], '!' .. ARGV[2])
if command and command == ARGV[4] then
  redis.call('HDEL', KEYS[1], '!' .. ARGV[2])
  return false
end
return command
