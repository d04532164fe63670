#!lua flags=allow-oom
-- admin_snapshot: all of a small queue but the text of its records, at one instant. For `check` only. Changes nothing.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta unique stats watched cancels progress lingering ties
-- ARGV[1] layout  [2] most entries of each key  [3] most bytes of records
-- returns false when it is larger, else {ids, marks, ready, suspects, priority with scores, delayed, done, dead,
--   ids held by each session, crashes, cancels, watched, progress, lingering, unique, ids with ties, those of them with a group, those parked, {group, ids, …}, those that wait for others, those that left something to read,
--   scores grow with age (0/1)}
-- include: record
-- include: ties
-- include: ending
-- include: seat
local q = queue_at(1)
local most, room = tonumber(ARGV[2]), tonumber(ARGV[3])
local sizes = {
  HLEN = {q.jobs, q.crashes, q.watched, q.progress, q.unique, q.ties, key_of(q, 'kept')}, LLEN = {q.ready, q.suspects}, SCARD = {q.cancels, q.lingering},
  ZCARD = {q.priority, q.delayed, q.sessions, q.done, q.dead, key_of(q, 'groups')},
}
for command, keys in pairs(sizes) do
  for i = 1, #keys do
    if redis.call(command, keys[i]) > most then return false end
  end
end
local ids, marks = redis.call('HKEYS', q.jobs), {}
for i = 1, #ids do
  room = room - redis.call('HSTRLEN', q.jobs, ids[i])
  if room < 0 then return false end
end
for i = 1, #ids do marks[i] = mark_of(redis.call('HGET', q.jobs, ids[i])) end
local sessions, held = redis.call('ZRANGE', q.sessions, 0, -1), {}
for i = 1, #sessions do
  held[2 * i - 1], held[2 * i] = sessions[i], redis.call('SMEMBERS', base_of(q) .. 'held:' .. sessions[i])
end
local function all(key) return redis.call('ZRANGE', key, 0, -1) end
local tied, grouped, lanes = redis.call('HKEYS', q.ties), {}, {}
for i = 1, #tied do
  if ties_of(q, tied[i]).g then grouped[#grouped + 1] = tied[i] end
end
for _, group in ipairs(all(key_of(q, 'groups'))) do
  if group ~= '' then lanes[#lanes + 1], lanes[#lanes + 2] = group, redis.call('LRANGE', key_of(q, 'group:' .. group), 0, -1) end
end
return {
  ids, marks, redis.call('LRANGE', q.ready, 0, -1), redis.call('LRANGE', q.suspects, 0, -1),
  redis.call('ZRANGE', q.priority, 0, -1, 'WITHSCORES'), all(q.delayed), all(q.done), all(q.dead), held,
  redis.call('HKEYS', q.crashes), redis.call('SMEMBERS', q.cancels), redis.call('HGETALL', q.watched),
  redis.call('HKEYS', q.progress), redis.call('SMEMBERS', q.lingering), redis.call('HGETALL', q.unique),
  tied, grouped, all(key_of(q, 'parked')), lanes, redis.call('HKEYS', key_of(q, 'waiting')),
  redis.call('HKEYS', key_of(q, 'kept')), redis.call('HEXISTS', q.meta, 'aged'),
}
