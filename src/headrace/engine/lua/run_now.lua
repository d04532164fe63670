#!lua flags=allow-oom
-- run_now: a job that waits for its time stands at the head of its queue instead.
-- keys: jobs ready priority delayed meta wake ties
-- ARGV[1] layout  [2] job id
-- returns queued, or live: it does not wait for a time
-- include: record
-- include: ties
-- include: place
local q = queue_at(1)
local id = ARGV[2]
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local record = redis.call('HGET', q.jobs, id)
if not record then return redis.error_reply('NOJOB ' .. id) end
if redis.call('ZREM', q.delayed, id) == 0 then return 'live' end
put_front(q, {id}, {record})
ring(q)
return 'queued'
