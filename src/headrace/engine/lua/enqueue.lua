#!lua
-- enqueue: store new jobs and put each in its place; all of them or none.
-- keys: jobs ready priority delayed meta producers wake stats lingering
-- ARGV[1] layout  [2] producer  [3] number of this call  [4] count of plain jobs, then id, record of each;
--   then the others, each: id, record, ties ('' for none: see include/ties.lua), and how it goes in, in words: priority, front (0/1), delay ms, at ms,
--   check id (0/1; 2: passed over if it is there), expires in ms (0: as the record says), what to do when its unique key is taken: existing | raise | replace | debounce
-- returns {} or {'same', id, id of the job that is there, …}; or, and then nothing is written, {'taken', ids…} | {'held', id of the holder, …}
local q = queue_at(1)
local found = redis.call('HMGET', q.meta, 'layout', 'max_length', 'overflow', 'aged', 'ageing', 'indexed')
if found[1] and tonumber(found[1]) > tonumber(ARGV[1]) then return redis.error_reply('LAYOUT ' .. found[1]) end
local last = redis.call('HGET', q.producers, ARGV[2])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[3]) then
  local told = {}
  for word in string.gmatch(string.match(last, '^%d+ %d+ (.+)$') or '', '%S+') do told[#told + 1] = word end
  return told
end

local EACH = 4
local plain = tonumber(ARGV[4])
local others = 5 + 2 * plain
local count = plain + (#ARGV - others + 1) / EACH
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

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
  -- include: index
  local it = {index_put = index_put, bind = bind, key_of = key_of, read_ties = read_ties, turn_of = turn_of, follow = follow, arrivals = arrivals, front_of = front_of}
  rare_ones = it
  for _, name in ipairs({'ties', 'watched', 'progress', 'cancels', 'done', 'dead', 'suspects', 'crashes'}) do q[name] = key_of(q, name) end

  -- Put the plain jobs in their order: the queue ages.
  function it.put_aged()
    local first, gap = arrivals(q, plain)
    local values = {}
    for i = 1, plain do values[2 * i - 1], values[2 * i] = 100 * LEVEL + first + (i - 1) * gap, ARGV[3 + 2 * i] end
    redis.call('ZADD', q.priority, unpack(values))
  end

  -- By number, the jobs that have the keys which these want; and {'held', …} of those that must be told.
  function it.owners(ids, hows, ties, passed)
    local owners, held, mine, keys = {}, {'held'}, {}, {}
    for i = 1, #ids do
      if ties[i] and ties[i].u and not passed[i] then keys[#keys + 1] = ties[i].u end
    end
    local found = owners_of(q, keys, now_ms)
    for i = 1, #ids do
      local key = ties[i] and not passed[i] and ties[i].u
      if key then
        local owner = mine[key] or found[key]
        owners[i], mine[key] = owner, owner or ids[i]
        if owner and hows[i].conflict == 'raise' then held[#held + 1] = owner end
      end
    end
    return owners, held
  end

  -- Give a job that waits the arguments of a later call; `debounce`: and its time.
  function it.take_over(owner, record, how)
    local old = redis.call('HGET', q.jobs, owner)
    if not old or state_of(old) ~= LIVE or priority_of(old) ~= priority_of(record) then return end
    redis.call('HSET', q.jobs, owner, record)
    if found[6] then index_again(q, {owner}, {record}) end
    if how.conflict == 'debounce' then redis.call('ZADD', q.delayed, 'XX', how.delay > 0 and now_ms + how.delay or how.due, owner) end
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

-- Many jobs of a call go in alike: each wording is read once.
local known = {}
local function how_of(words)
  local how = known[words]
  if how then return how end
  local priority, front, delay, due, check, expires, conflict = string.match(words, '^(%S+) (%d) (%d+) (%d+) (%d) (%d+) (%l*)$')
  how = {
    priority = tonumber(priority), is_front = front == '1', delay = tonumber(delay), due = tonumber(due),
    check = check, expires = tonumber(expires), conflict = conflict,
  }
  known[words] = how
  return how
end

-- Of the jobs that are not plain, by number.
local ids, hows, ties, passed, asked = {}, {}, {}, {}, {}
for at = others, #ARGV, EACH do
  local how, n = how_of(ARGV[at + 3]), #ids + 1
  ids[n], hows[n] = ARGV[at], how
  if how.check ~= '0' then asked[#asked + 1] = ARGV[at] end
  if ARGV[at + 2] ~= '' then ties[n] = rare().read_ties(ARGV[at + 2]) end
end
if #asked > 0 then
  local taken, seen, there = {'taken'}, {}, redis.call('HMGET', q.jobs, unpack(asked))
  for i = 1, #asked do there[asked[i]] = there[i] end
  for i = 1, #ids do
    local id, check = ids[i], hows[i].check
    if check == '1' and (seen[id] or there[id]) then taken[#taken + 1] = id end
    if check == '2' and (seen[id] or there[id]) then passed[i], count = true, count - 1 end
    seen[id] = true
  end
  if #taken > 1 then return taken end
end

-- Bytes 4 to 12 of a record are when the job expires, a msgpack uint64; counted from here by this clock, not the producer's.
local function record_of(i)
  local record, expires = ARGV[others + EACH * (i - 1) + 1], hows[i].expires
  if expires == 0 then return record end
  return string.sub(record, 1, 4) .. struct.pack('>I8', now_ms + expires) .. string.sub(record, 13)
end

local owners, same = {}, {}
if next(ties) then
  local held
  owners, held = rare().owners(ids, hows, ties, passed)
  if #held > 1 then return held end
end
if found[2] then
  local refused = rare().make_room(tonumber(found[2]), found[3])
  if refused then return refused end
end

if not found[1] then redis.call('HSET', q.meta, 'layout', ARGV[1]) end
local must_ring = plain > 0
if plain > 0 and found[5] then
  redis.call('HSET', q.jobs, unpack(ARGV, 5, others - 1))
  rare().put_aged()
elseif plain == 1 then
  redis.call('HSET', q.jobs, ARGV[5], ARGV[6])
  redis.call('RPUSH', q.ready, ARGV[5])
elseif plain > 0 then
  redis.call('HSET', q.jobs, unpack(ARGV, 5, others - 1))
  local all = {}
  for i = 1, plain do all[i] = ARGV[3 + 2 * i] end
  redis.call('RPUSH', q.ready, unpack(all))
end

-- What several jobs write to one key is written at once: each a command with its values.
local writes, by_key, ranked, dues = {}, {}, {}, {}
local function write(command, key, first, second, option)
  local values = by_key[key]
  if not values then
    values = {command, key, option}
    by_key[key], writes[#writes + 1] = values, values
  end
  values[#values + 1], values[#values + 2] = first, second
end

-- By priority, then in the order they came: see include/place.lua.
local function rank()
  local front, first, gap = 0, 1, 1
  if found[4] then
    front, first, gap = rare().front_of(q, 100), rare().arrivals(q, #ranked)
  else
    first = redis.call('HINCRBY', q.meta, 'seq', #ranked) - #ranked + 1
  end
  for n, i in ipairs(ranked) do
    local arrival = hows[i].is_front and front or first + (n - 1) * gap
    write('ZADD', q.priority, (100 - hows[i].priority) * 17592186044416 + arrival, ids[i])
  end
  ranked = {}
end

local function flush()
  if #ranked > 0 then rank() end
  for _, values in ipairs(writes) do redis.call(unpack(values)) end
  writes, by_key = {}, {}
end

-- Of a job with ties. Returns true when it waits for others.
local function bind(i, id, tie)
  write('HSET', q.ties, id, ARGV[others + EACH * (i - 1) + 2])
  if tie.u and not tie.m and q.throttles == false then
    write('HSET', rare().key_of(q, 'unique'), tie.u, id)
  elseif tie.u then
    rare().bind(q, id, tie, now_ms)
  end
  if not tie.p then return false end
  write('HSET', rare().key_of(q, 'waiting'), id, tie.p)
  if tie.x then write('ZADD', rare().key_of(q, 'timeouts'), now_ms + tie.x, id) end
  if tie.o then write('ZADD', rare().key_of(q, 'linking'), now_ms, id) end
  return true
end

local new_ids, new_records = {}, {} -- for the index
local function store(i)
  local id, how, tie = ids[i], hows[i], ties[i]
  -- An id that is used again: the entry of the job it was before must not run this one.
  if how.check == '1' and redis.call('SREM', q.lingering, id) == 1 then redis.call('LREM', q.ready, 0, id) end
  write('HSET', q.jobs, id, record_of(i))
  if found[6] then new_ids[#new_ids + 1], new_records[#new_records + 1] = id, record_of(i) end
  if tie and bind(i, id, tie) then return end
  local due = how.due
  if how.delay > 0 then due = now_ms + how.delay end
  if due > now_ms then
    write('ZADD', q.delayed, due, id)
    dues[id] = true
    return
  end
  must_ring = true
  if tie and tie.g then
    local lane = rare().key_of(q, 'group:' .. tie.g)
    if not by_key[lane] then write('ZADD', rare().key_of(q, 'groups'), rare().turn_of(q), tie.g, 'NX') end
    if tie.w then write('HSET', rare().key_of(q, 'weights'), tie.g, tie.w) end
    if how.is_front then redis.call('LPUSH', lane, id) else write('RPUSH', lane, id) end
  elseif how.priority ~= 0 or found[5] and not how.is_front then
    ranked[#ranked + 1] = i
  elseif how.is_front then
    redis.call('LPUSH', q.ready, id)
  else
    write('RPUSH', q.ready, id)
  end
end

for i = 1, #ids do
  if owners[i] then
    if owners[i] ~= ids[i] then same[#same + 1], same[#same + 2] = ids[i], owners[i] end
    if hows[i].conflict == 'replace' or hows[i].conflict == 'debounce' then
      flush() -- the owner may be a job of this call
      if found[6] then
        rare().index_put(q, new_ids, new_records)
        new_ids, new_records = {}, {}
      end
      rare().take_over(owners[i], record_of(i), hows[i])
    end
  elseif not passed[i] then
    store(i)
  end
end
flush()
if found[6] then
  for i = 1, plain do new_ids[#new_ids + 1], new_records[#new_records + 1] = ARGV[3 + 2 * i], ARGV[4 + 2 * i] end
  rare().index_put(q, new_ids, new_records)
end
if next(dues) and dues[redis.call('ZRANGE', q.delayed, 0, 0)[1]] then must_ring = true end
if #same > 0 then table.insert(same, 1, 'same') end
if rare_ones then rare_ones.follow(q) end -- of those that were dropped
-- The call's number, when (seconds), and what was answered.
redis.call('HSET', q.producers, ARGV[2], ARGV[3] .. ' ' .. time[1] .. (#same > 0 and ' ' .. table.concat(same, ' ') or ''))
redis.call('HINCRBY', q.stats, 'enqueued', count - math.max(#same - 1, 0) / 2)
if must_ring then redis.call('ZADD', q.wake, 0, '1') end
return same
