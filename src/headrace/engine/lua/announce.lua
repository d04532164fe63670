#!lua flags=allow-oom
-- announce: put queues on the list of all queues; works on a full server too, since a worker that drains it begins so.
-- ARGV[1] layout  [2..] names     KEYS[1] queues
redis.call('SADD', KEYS[1], unpack(ARGV, 2))
return 1
