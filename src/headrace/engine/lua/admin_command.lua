#!lua flags=allow-oom
-- admin_command: leave a command for a worker; its next beat takes it.
-- ARGV[1] layout  [2] worker id  [3] command     KEYS[1] workers
-- returns 1, or 0 when there is no such worker
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[1], '!' .. ARGV[2], ARGV[3])
return 1
