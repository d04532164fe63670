#!lua flags=allow-oom
-- note: keep what somebody says of a job, in notes:ID, for as long as its record is kept.
-- keys: jobs watched
-- ARGV[1] layout  [2] job id  [3..] name, value ('' takes it away) ...
-- returns 1, or 0 when there is no such job
-- include: record
-- include: ties
-- include: kept
local q = queue_at(1)
local id = ARGV[2]
local record = redis.call('HGET', q.jobs, id)
if not record then return 0 end
begin_kept(q, id, 0, state_of(record) == LIVE)
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key_of(q, 'notes:' .. id), ARGV[i])
  else
    redis.call('HSET', key_of(q, 'notes:' .. id), ARGV[i], ARGV[i + 1])
  end
end
return 1
