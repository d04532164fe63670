#!lua flags=allow-oom
-- admin_where: in which places of a queue each of these jobs stands, at one instant. Reads whole lists: for `check` only.
-- keys: jobs ready priority delayed sessions suspects done dead
-- ARGV[1] layout  [2] sessions named  [3..] the sessions whose held sets follow the queue's keys, then ids
-- returns for each id {state byte or -1, in ready, priority, delayed, suspects, done, dead, held}; or `again`
-- include: record
local q = queue_at(1)
local named = tonumber(ARGV[2])
if redis.call('ZCARD', q.sessions) ~= named then return 'again' end
for i = 3, named + 2 do
  if not redis.call('ZSCORE', q.sessions, ARGV[i]) then return 'again' end
end
local function in_set(key, id) return redis.call('ZSCORE', key, id) and 1 or 0 end
local found = {}
for i = named + 3, #ARGV do
  local id, held = ARGV[i], 0
  for n = 1, named do held = held + redis.call('SISMEMBER', KEYS[KEYS_PER_QUEUE + n], id) end
  local record = redis.call('HGET', q.jobs, id)
  found[#found + 1] = {
    record and state_of(record) or -1, #redis.call('LPOS', q.ready, id, 'COUNT', 0), in_set(q.priority, id),
    in_set(q.delayed, id), #redis.call('LPOS', q.suspects, id, 'COUNT', 0), in_set(q.done, id), in_set(q.dead, id), held,
  }
end
return found
