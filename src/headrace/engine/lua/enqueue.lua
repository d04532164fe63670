#!lua
-- enqueue: store new jobs and put each in its place; all of them or none.
-- keys: jobs ready priority delayed meta producers wake stats lingering
-- ARGV[1] layout  [2] producer  [3] number of this call  [4] count of plain jobs, then id, record of each;
--   then the others, each: id, record, priority, front (0/1), delay ms, at ms, check id (0/1; 2: passed over if it is there), expires in ms (0: as the record says),
--   ties ('' for none: see include/ties.lua), what to do when its unique key is taken: existing | raise | replace | debounce
-- returns {} or {'same', id, id of the job that is there, …}; or, and then nothing is written, {'taken', ids…} | {'held', id of the holder, …}
local q = queue_at(1)
local found = redis.call('HMGET', q.meta, 'layout', 'max_length', 'overflow')
if found[1] and tonumber(found[1]) > tonumber(ARGV[1]) then return redis.error_reply('LAYOUT ' .. found[1]) end
local last = redis.call('HGET', q.producers, ARGV[2])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[3]) then
  local told = {}
  for word in string.gmatch(string.match(last, '^%d+ %d+ (.+)$') or '', '%S+') do told[#told + 1] = word end
  return told
end

local EACH = 10
local plain = tonumber(ARGV[4])
local others = 5 + 2 * plain
local count = plain + (#ARGV - others + 1) / EACH
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local taken, seen, passed, ties, has_ties = {'taken'}, {}, {}, {}, false
for at = others, #ARGV, EACH do
  local id = ARGV[at]
  if ARGV[at + 6] == '1' and (seen[id] or redis.call('HEXISTS', q.jobs, id) == 1) then taken[#taken + 1] = id end
  if ARGV[at + 6] == '2' and redis.call('HEXISTS', q.jobs, id) == 1 then passed[at], count = true, count - 1 end
  seen[id] = true
  if ARGV[at + 8] ~= '' then ties[at], has_ties = cmsgpack.unpack(ARGV[at + 8]), true end
end
if #taken > 1 then return taken end

-- Bytes 4 to 12 of a record are when the job expires, a msgpack uint64; counted from here by this clock, not the producer's.
local function record_at(at)
  local record, expires = ARGV[at + 1], tonumber(ARGV[at + 7])
  if expires == 0 then return record end
  return string.sub(record, 1, 4) .. struct.pack('>I8', now_ms + expires) .. string.sub(record, 13)
end

-- What only jobs with ties, and queues of a limited length, need: made when one comes.
local rare_ones
local function rare()
  if rare_ones then return rare_ones end
  -- include: record
  -- include: ties
  -- include: place
  -- include: ending
  -- include: edges
  -- include: unique
  local it = {bind = bind, key_of = key_of, take_part = take_part, follow = follow}
  rare_ones = it
  for _, name in ipairs({'ties', 'watched', 'progress', 'cancels', 'done', 'dead', 'suspects', 'crashes'}) do q[name] = key_of(q, name) end

  -- By offset in ARGV, the jobs that have the keys which these want; and {'held', …} of those that must be told.
  function it.owners()
    local owners, held, mine = {}, {'held'}, {}
    for at = others, #ARGV, EACH do
      local key = ties[at] and not passed[at] and ties[at].u
      if key then
        local owner = mine[key] or owner_of(q, key, now_ms)
        owners[at], mine[key] = owner, owner or ARGV[at]
        if owner and ARGV[at + 9] == 'raise' then held[#held + 1] = owner end
      end
    end
    return owners, held
  end

  -- Give a job that waits the arguments of a later call; `debounce`: and its time.
  function it.take_over(at, owner)
    local record, due = record_at(at), tonumber(ARGV[at + 5])
    local old = redis.call('HGET', q.jobs, owner)
    if not old or state_of(old) ~= LIVE or priority_of(old) ~= priority_of(record) then return end
    redis.call('HSET', q.jobs, owner, record)
    if tonumber(ARGV[at + 4]) > 0 then due = now_ms + ARGV[at + 4] end
    if ARGV[at + 9] == 'debounce' then redis.call('ZADD', q.delayed, 'XX', due, owner) end
  end

  -- Room for `count` more: nil, or the error. `drop_oldest`: those that have waited longest in `ready` end as cancelled.
  function it.make_room(most, overflow)
    local live = redis.call('HLEN', q.jobs) - redis.call('ZCARD', q.done) - redis.call('ZCARD', q.dead)
    local excess = live + count - most
    if excess <= 0 then return end
    local error = redis.error_reply('QUEUEFULL ' .. string.format('%d', live) .. ' ' .. string.format('%d', most))
    if overflow ~= 'drop_oldest' or redis.call('LLEN', q.ready) - redis.call('SCARD', q.lingering) < excess then return error end
    while excess > 0 do
      local id = redis.call('LPOP', q.ready)
      local record = id and redis.call('HGET', q.jobs, id)
      if not id then return error end
      if record and state_of(record) == LIVE then
        finish(q, id, with_reason(with_state(record, CANCELLED), 'dropped: the queue was full'), q.done, now_ms + DAY_MS, 'cancelled')
        excess = excess - 1
      else
        redis.call('SREM', q.lingering, id)
      end
    end
  end
  return it
end

local owners, same = {}, {}
if has_ties then
  local held
  owners, held = rare().owners()
  if #held > 1 then return held end
end
if found[2] then
  local refused = rare().make_room(tonumber(found[2]), found[3])
  if refused then return refused end
end

if not found[1] then redis.call('HSET', q.meta, 'layout', ARGV[1]) end
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

local function store(at)
  local id, priority, delay, due, tie = ARGV[at], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), ties[at]
  -- An id that is used again: the entry of the job it was before must not run this one.
  if ARGV[at + 6] == '1' and redis.call('SREM', q.lingering, id) == 1 then redis.call('LREM', q.ready, 0, id) end
  redis.call('HSET', q.jobs, id, record_at(at))
  if tie then
    redis.call('HSET', q.ties, id, ARGV[at + 8])
    if tie.u then rare().bind(q, id, tie, now_ms) end
    if tie.p then
      redis.call('HSET', rare().key_of(q, 'waiting'), id, tie.p)
      if tie.x then redis.call('ZADD', rare().key_of(q, 'timeouts'), now_ms + tie.x, id) end
      if tie.o then redis.call('ZADD', rare().key_of(q, 'linking'), now_ms, id) end
      return
    end
  end
  if delay > 0 then due = now_ms + delay end
  if due > now_ms then
    redis.call('ZADD', q.delayed, due, id)
    must_ring = must_ring or redis.call('ZRANGE', q.delayed, 0, 0)[1] == id
    return
  end
  must_ring = true
  local push = ARGV[at + 3] == '1' and 'LPUSH' or 'RPUSH'
  if tie and tie.g then
    redis.call(push, rare().key_of(q, 'group:' .. tie.g), id)
    rare().take_part(q, tie.g, tie.w)
  elseif priority ~= 0 then
    local arrival = ARGV[at + 3] == '1' and 0 or redis.call('HINCRBY', q.meta, 'seq', 1)
    redis.call('ZADD', q.priority, (100 - priority) * 17592186044416 + arrival, id)
  else
    redis.call(push, q.ready, id)
  end
end

for at = others, #ARGV, EACH do
  if owners[at] then
    if owners[at] ~= ARGV[at] then same[#same + 1], same[#same + 2] = ARGV[at], owners[at] end
    if ARGV[at + 9] == 'replace' or ARGV[at + 9] == 'debounce' then rare().take_over(at, owners[at]) end
  elseif not passed[at] then
    store(at)
  end
end
if #same > 0 then table.insert(same, 1, 'same') end
if rare_ones then rare_ones.follow(q) end -- of those that were dropped
-- The call's number, when (seconds), and what was answered.
redis.call('HSET', q.producers, ARGV[2], ARGV[3] .. ' ' .. time[1] .. (#same > 0 and ' ' .. table.concat(same, ' ') or ''))
redis.call('HINCRBY', q.stats, 'enqueued', count - math.max(#same - 1, 0) / 2)
if must_ring then redis.call('ZADD', q.wake, 0, '1') end
return same
