#!lua flags=allow-oom
-- log: add a line to a job's log: the last 1,000 are kept, for a day.
-- ARGV[1] layout  [2] line     KEYS[1] the job's log
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], -1000, -1)
redis.call('PEXPIRE', KEYS[1], 86400000)
return 1
