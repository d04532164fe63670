#!lua flags=allow-oom
-- admin_audit: note what an operator did: the last 1,000 notes are kept.
-- ARGV[1] layout  [2] note     KEYS[1] audit
redis.call('LPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], 0, 999)
return 1
