#!lua flags=allow-oom
-- admin_held: what one session holds, with the records. Changes nothing.
-- keys: jobs held
-- ARGV[1] layout
-- returns {ids, records (false: there is none)}
-- include: record
local q = queue_at(1)
local ids = redis.call('SMEMBERS', q.held)
if #ids == 0 then return {ids, {}} end
table.sort(ids)
return {ids, redis.call('HMGET', q.jobs, unpack(ids))}
