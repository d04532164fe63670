#!lua
-- enqueue: store new jobs and put each in its place; all of them or none.
-- keys: jobs ready priority delayed meta producers wake stats lingering
-- ARGV[1] layout  [2] producer  [3] number of this call  [4] count of plain jobs, then id, record of each;
--   then the others, each: id, record, priority, front (0/1), delay ms, at ms, check id (0/1), expires in ms (0: as the record says)
-- returns {} or the ids that are taken (nothing is written then)
local q = queue_at(1)
local found = redis.call('HGET', q.meta, 'layout')
if found and tonumber(found) > tonumber(ARGV[1]) then return redis.error_reply('LAYOUT ' .. found) end
local last = redis.call('HGET', q.producers, ARGV[2])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[3]) then return {} end

local plain = tonumber(ARGV[4])
local others = 5 + 2 * plain
local taken, seen = {}, {}
for at = others, #ARGV, 8 do
  local id = ARGV[at]
  if ARGV[at + 6] == '1' and (seen[id] or redis.call('HEXISTS', q.jobs, id) == 1) then taken[#taken + 1] = id end
  seen[id] = true
end
if #taken > 0 then return taken end

local time = redis.call('TIME')
if not found then redis.call('HSET', q.meta, 'layout', ARGV[1]) end
redis.call('HSET', q.producers, ARGV[2], ARGV[3] .. ' ' .. time[1]) -- the call's number, and when (seconds)
local must_ring = plain > 0
if plain == 1 then
  redis.call('HSET', q.jobs, ARGV[5], ARGV[6])
  redis.call('RPUSH', q.ready, ARGV[5])
elseif plain > 0 then
  redis.call('HSET', q.jobs, unpack(ARGV, 5, others - 1))
  local ids = {}
  for i = 1, plain do ids[i] = ARGV[3 + 2 * i] end
  redis.call('RPUSH', q.ready, unpack(ids))
end
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for at = others, #ARGV, 8 do
  -- An id that is used again: the entry of the job it was before must not run this one.
  if ARGV[at + 6] == '1' and redis.call('SREM', q.lingering, ARGV[at]) == 1 then redis.call('LREM', q.ready, 0, ARGV[at]) end
  local id, priority, delay, due = ARGV[at], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local record, expires = ARGV[at + 1], tonumber(ARGV[at + 7])
  -- Bytes 4 to 12 are when the job expires, a msgpack uint64; counted from here by this clock, not the producer's.
  if expires > 0 then record = string.sub(record, 1, 4) .. struct.pack('>I8', now_ms + expires) .. string.sub(record, 13) end
  redis.call('HSET', q.jobs, id, record)
  if delay > 0 then due = now_ms + delay end
  if due > now_ms then
    redis.call('ZADD', q.delayed, due, id)
    must_ring = must_ring or redis.call('ZRANGE', q.delayed, 0, 0)[1] == id
  else
    must_ring = true
    if priority ~= 0 then
      local arrival = ARGV[at + 3] == '1' and 0 or redis.call('HINCRBY', q.meta, 'seq', 1)
      redis.call('ZADD', q.priority, (100 - priority) * 17592186044416 + arrival, id)
    elseif ARGV[at + 3] == '1' then
      redis.call('LPUSH', q.ready, id)
    else
      redis.call('RPUSH', q.ready, id)
    end
  end
end
redis.call('HINCRBY', q.stats, 'enqueued', plain + (#ARGV - others + 1) / 8)
if must_ring then redis.call('ZADD', q.wake, 0, '1') end
return {}
