#!lua flags=allow-oom
-- give_back: return unstarted jobs to the head of their queue, order kept, uncharged.
-- keys: jobs ready priority sessions suspects crashes meta wake ties held
-- ARGV[1] layout  [2] session  [3..] ids, in the order they were claimed
-- returns the ids given back; those no longer held are left alone
-- include: record
-- include: ties
-- include: place
local q = queue_at(1)
if not redis.call('ZSCORE', q.sessions, ARGV[2]) then return redis.error_reply('GONE ' .. ARGV[2]) end
if #ARGV < 3 then return {} end
local flags = redis.call('SMISMEMBER', q.held, unpack(ARGV, 3))
local ids = {}
for i = 1, #flags do
  if flags[i] == 1 then ids[#ids + 1] = ARGV[i + 2] end
end
if #ids == 0 then return ids end
redis.call('SREM', q.held, unpack(ids))
loosen_all(q, ids, true)
local records, plain, plain_records = redis.call('HMGET', q.jobs, unpack(ids)), {}, {}
local suspected = redis.call('HMGET', q.crashes, unpack(ids))
for i = 1, #ids do
  if suspected[i] then
    redis.call('LPUSH', q.suspects, ids[i])
  else
    plain[#plain + 1], plain_records[#plain_records + 1] = ids[i], records[i]
  end
end
put_front(q, plain, plain_records)
ring(q)
return ids
