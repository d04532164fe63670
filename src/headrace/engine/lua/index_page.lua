#!lua flags=allow-oom
-- index_page: jobs that are found by a term, the newest first, with their records. Changes nothing.
-- keys: jobs
-- ARGV[1] layout  [2] term  [3] first  [4] most jobs
-- returns {ids, records (false: there is none)}
-- include: ties
local q = queue_at(1)
local ids = redis.call('ZREVRANGE', key_of(q, 'index:' .. ARGV[2]), ARGV[3], ARGV[3] + ARGV[4] - 1)
return {ids, #ids > 0 and redis.call('HMGET', q.jobs, unpack(ids)) or {}}
