#!lua flags=allow-oom
-- link: a job of this queue, when it ends, sends what it ended with to another; at once if it has ended. Again does no harm.
-- keys: jobs meta ties
-- ARGV[1] layout  [2] job id  [3] the child's queue, '' for this one  [4] child  [5] input number or name  [6] when
-- returns 1 linked | 0 it has ended: the outbox has it | -1 there is no such job
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: edges
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local id, n = ARGV[2], tonumber(ARGV[5]) or ARGV[5]
local record = redis.call('HGET', q.jobs, id)
if not record then return -1 end
if state_of(record) ~= LIVE then
  redis.call('RPUSH', key_of(q, 'outbox'), letter({q = ARGV[3], c = ARGV[4], n = n, w = ARGV[6]}, id, record))
  return 0
end
local ties = ties_of(q, id) or {}
ties.e = ties.e or {}
for _, edge in ipairs(ties.e) do
  if edge.q == ARGV[3] and edge.c == ARGV[4] and edge.n == n then return 1 end
end
ties.e[#ties.e + 1] = {q = ARGV[3], c = ARGV[4], n = n, w = ARGV[6]}
redis.call('HSET', q.ties, id, cmsgpack.pack(ties))
return 1
