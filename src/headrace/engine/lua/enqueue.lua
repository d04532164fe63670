#!lua
-- enqueue: store new jobs and put each in its place; all of them or none.
-- keys: jobs ready priority delayed meta producers wake stats lingering
-- ARGV[1] layout  [2] producer  [3] number of this call  [4] count of plain jobs, then id, record of each;
--   then, if there are others: how they all go in, then id, record of each, then the ties of each ('' for none: see include/ties.lua);
--   or '', then each: id, record, ties, how it goes in.
--   How: priority, front (0/1), delay ms, at ms, check id (0/1; 2: passed over if it is there), expires in ms (0: as the record says), what to do
--   when its unique key is taken: existing | raise | replace | debounce
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

local ARGV = ARGV -- each global costs a look
local plain = tonumber(ARGV[4])
local first = 6 + 2 * plain -- of the others
local alike = ARGV[first - 1] ~= '' and ARGV[first - 1]
local each = alike and 2 or 4
local others = alike and (#ARGV - first + 1) / 3 or math.max(#ARGV - first + 1, 0) / 4
local count = plain + others
local ties_at, next_tie = alike and first + 2 * others or first + 2, alike and 1 or 4
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- What only jobs with ties need, and then what only queues that age or have a limited length do: made when one comes.
local rare_ones
local function rare()
  if rare_ones then return rare_ones end
  -- include: record
  -- include: ties
  -- include: unique
  local it = {weigh = weigh, bind = bind, key_of = key_of, read_ties = read_ties, turn_of = turn_of}
  rare_ones = it
  q.ties, q.unique = key_of(q, 'ties'), key_of(q, 'unique')

  -- By number, the jobs that have the keys which these want; and {'held', …} of those that must be told.
  function it.owners(ids, hows, ties, passed)
    local owners, held, mine, keys, wanting, count = {}, {'held'}, {}, {}, {}, 0
    for i = 1, #ids do
      local tie = ties[i]
      if tie and tie.u and not passed[i] then
        count = count + 1
        keys[count], wanting[count] = tie.u, i
      end
    end
    local found = owners_of(q, keys, now_ms)
    for n = 1, count do
      local key, i = keys[n], wanting[n]
      local owner = mine[key] or found[n]
      mine[key] = owner or ids[i]
      if owner then
        owners[i] = owner
        if hows[i].conflict == 'raise' then held[#held + 1] = owner end
      end
    end
    return owners, held
  end

  -- Give a job that waits the arguments of a later call; `debounce`: and its time.
  function it.take_over(owner, record, how)
    local old = redis.call('HGET', q.jobs, owner)
    if not old or state_of(old) ~= LIVE or priority_of(old) ~= priority_of(record) then return end
    redis.call('HSET', q.jobs, owner, record)
    if found[6] then it.index().index_again(q, {owner}, {record}) end
    if how.conflict == 'debounce' then redis.call('ZADD', q.delayed, 'XX', how.delay > 0 and now_ms + how.delay or how.due, owner) end
  end

  function it.index()
    if it.index_put then return it end
    -- include: index
    it.index_put, it.index_again = index_put, index_again
    return it
  end

  function it.places()
    if it.arrivals then return it end
    -- include: place
    -- include: ending
    -- include: edges
    it.arrivals, it.front_of, it.follow = arrivals, front_of, follow
    for _, name in ipairs({'watched', 'progress', 'cancels', 'done', 'dead', 'suspects', 'crashes'}) do q[name] = key_of(q, name) end

    -- Put the plain jobs in their order: the queue ages.
    function it.put_aged()
      local first, gap = arrivals(q, plain)
      local values = {}
      for i = 1, plain do values[2 * i - 1], values[2 * i] = 100 * LEVEL + first + (i - 1) * gap, ARGV[3 + 2 * i] end
      redis.call('ZADD', q.priority, unpack(values))
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
  how.is_due = how.delay == 0 and how.due <= now_ms
  how.is_last = how.is_due and how.priority == 0 and not how.is_front and not found[5] -- to the tail of `ready`
  known[words] = how
  return how
end

-- Of the jobs that are not plain, by number.
local ids, hows, ties, passed, asked = {}, {}, {}, {}, {}
local read_ties
for i = 1, others do
  local at, packed = first + each * (i - 1), ARGV[ties_at + next_tie * (i - 1)]
  local how = how_of(alike or ARGV[at + 3])
  ids[i], hows[i] = ARGV[at], how
  if how.check ~= '0' then asked[#asked + 1] = ARGV[at] end
  if packed ~= '' then
    read_ties = read_ties or rare().read_ties
    ties[i] = read_ties(packed)
  end
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
  local record, expires = ARGV[first + each * (i - 1) + 1], hows[i].expires
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
  local refused = rare().places().make_room(tonumber(found[2]), found[3])
  if refused then return refused end
end

if not found[1] then redis.call('HSET', q.meta, 'layout', ARGV[1]) end
local must_ring = plain > 0
if plain > 0 and found[5] then
  redis.call('HSET', q.jobs, unpack(ARGV, 5, 4 + 2 * plain))
  rare().places().put_aged()
elseif plain == 1 then
  redis.call('HSET', q.jobs, ARGV[5], ARGV[6])
  redis.call('RPUSH', q.ready, ARGV[5])
elseif plain > 0 then
  redis.call('HSET', q.jobs, unpack(ARGV, 5, 4 + 2 * plain))
  local all = {}
  for i = 1, plain do all[i] = ARGV[3 + 2 * i] end
  redis.call('RPUSH', q.ready, unpack(all))
end

-- What several jobs write to one key is written at once. What all have, by itself: the records, ties, keys, and ids of the tail.
local records, tied, keys, tail = {}, {}, {}, {}
local record_count, tied_count, key_count, tail_count = 0, 0, 0, 0
local writes, by_key, ranked, dues = {}, {}, {}, {}

-- The rest: each a command with its values, `n` of them.
local function write(command, key, value, member, option)
  local values = by_key[key]
  if not values then
    values = {command, key, option, n = option and 3 or 2}
    by_key[key], writes[#writes + 1] = values, values
  end
  local n = values.n + 1
  values[n], values[n + 1], values.n = value, member, member and n + 1 or n
end

-- By priority, then in the order they came: see include/place.lua.
local function rank()
  local front, arrival, gap = 0, 1, 1
  if found[4] then
    front, arrival, gap = rare().places().front_of(q, 100), rare().places().arrivals(q, #ranked)
  else
    arrival = redis.call('HINCRBY', q.meta, 'seq', #ranked) - #ranked + 1
  end
  for n, i in ipairs(ranked) do
    local place = hows[i].is_front and front or arrival + (n - 1) * gap
    write('ZADD', q.priority, (100 - hows[i].priority) * 17592186044416 + place, ids[i])
  end
  ranked = {}
end

local function flush()
  if #ranked > 0 then rank() end
  if record_count > 0 then redis.call('HSET', q.jobs, unpack(records, 1, record_count)) end
  if tied_count > 0 then redis.call('HSET', q.ties, unpack(tied, 1, tied_count)) end
  if key_count > 0 then redis.call('HSET', q.unique, unpack(keys, 1, key_count)) end
  if tail_count > 0 then redis.call('RPUSH', q.ready, unpack(tail, 1, tail_count)) end
  for _, values in ipairs(writes) do redis.call(unpack(values, 1, values.n)) end
  record_count, tied_count, key_count, tail_count, writes, by_key = 0, 0, 0, 0, {}, {}
end

local function wait(id, tie)
  write('HSET', rare().key_of(q, 'waiting'), id, tie.p)
  if tie.x then write('ZADD', rare().key_of(q, 'timeouts'), now_ms + tie.x, id) end
  if tie.o then write('ZADD', rare().key_of(q, 'linking'), now_ms, id) end
end

local lanes = {}
local function join(id, tie, is_front)
  local lane = lanes[tie.g]
  if not lane then
    lane = rare().key_of(q, 'group:' .. tie.g)
    lanes[tie.g] = lane
    write('ZADD', rare().key_of(q, 'groups'), rare().turn_of(q), tie.g, 'NX')
  end
  if tie.w then write('HSET', rare().key_of(q, 'weights'), tie.g, tie.w) end
  if is_front then redis.call('LPUSH', lane, id) else write('RPUSH', lane, id) end
end

-- Of a job that waits for nothing.
local function place(i, id, how, tie)
  if not how.is_due then
    write('ZADD', q.delayed, how.delay > 0 and now_ms + how.delay or how.due, id)
    dues[id] = true
    return
  end
  must_ring = true
  if tie and tie.g then
    join(id, tie, how.is_front)
  elseif how.priority ~= 0 or found[5] and not how.is_front then
    ranked[#ranked + 1] = i
  else
    redis.call('LPUSH', q.ready, id)
  end
end

local new_ids, new_records = {}, {} -- for the index
local function store(i)
  local id, how, tie = ids[i], hows[i], ties[i]
  -- An id that is used again: the entry of the job it was before must not run this one.
  if how.check == '1' and redis.call('SREM', q.lingering, id) == 1 then redis.call('LREM', q.ready, 0, id) end
  record_count = record_count + 2
  records[record_count - 1], records[record_count] = id, how.expires == 0 and ARGV[first + each * (i - 1) + 1] or record_of(i)
  if found[6] then new_ids[#new_ids + 1], new_records[#new_records + 1] = id, records[record_count] end
  if tie then
    tied_count = tied_count + 2
    tied[tied_count - 1], tied[tied_count] = id, ARGV[ties_at + next_tie * (i - 1)]
    if tie.l or tie.s or tie.i or tie.v then rare().weigh(q, tie) end
    if tie.u and not tie.m and q.throttles == false then
      key_count = key_count + 2
      keys[key_count - 1], keys[key_count] = tie.u, id
    elseif tie.u then
      rare().bind(q, id, tie, now_ms)
    end
    if tie.p then return wait(id, tie) end
  end
  if how.is_last and not (tie and tie.g) then
    tail_count = tail_count + 1
    tail[tail_count] = id
  else
    place(i, id, how, tie)
  end
end

for i = 1, others do
  if owners[i] then
    if owners[i] ~= ids[i] then same[#same + 1], same[#same + 2] = ids[i], owners[i] end
    if hows[i].conflict == 'replace' or hows[i].conflict == 'debounce' then
      flush() -- the owner may be a job of this call
      if found[6] then
        rare().index().index_put(q, new_ids, new_records)
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
  rare().index().index_put(q, new_ids, new_records)
end
if tail[1] then must_ring = true end
if next(dues) and dues[redis.call('ZRANGE', q.delayed, 0, 0)[1]] then must_ring = true end
if #same > 0 then table.insert(same, 1, 'same') end
if rare_ones and rare_ones.follow then rare_ones.follow(q) end -- of those that were dropped
-- The call's number, when (seconds), and what was answered.
redis.call('HSET', q.producers, ARGV[2], ARGV[3] .. ' ' .. time[1] .. (#same > 0 and ' ' .. table.concat(same, ' ') or ''))
redis.call('HINCRBY', q.stats, 'enqueued', count - math.max(#same - 1, 0) / 2)
if must_ring then redis.call('ZADD', q.wake, 0, '1') end
return same
