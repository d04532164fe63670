-- Claims of jobs that limits hold back. A job over a limit is parked: no slot, no attempt, no
-- polling. It stands in the limit's own order, by priority, then arrival, until the gate is due or a slot is freed.

-- When the bucket of each limit is empty again, ms: read once a claim, written at its end.
local buckets, filled = {}, {}

local function read_buckets(q, all)
  local names = {}
  for i = 1, #all do
    for _, limit in ipairs(all[i] and all[i].l or {}) do
      if limit.r and not buckets[limit.n] then names[#names + 1], buckets[limit.n] = limit.n, 0 end
    end
  end
  local found = #names > 0 and redis.call('HMGET', key_of(q, 'rates'), unpack(names))
  for i = 1, #names do buckets[names[i]] = math.max(tonumber(found[i]) or 0, now_ms) end
end

local function bucket_of(q, name)
  if not buckets[name] then buckets[name] = math.max(tonumber(redis.call('HGET', key_of(q, 'rates'), name)) or 0, now_ms) end
  return buckets[name]
end

local function write_buckets(q)
  local values = {}
  for name in pairs(filled) do values[#values + 1], values[#values + 2] = name, string.format('%.3f', buckets[name]) end
  if #values > 0 then redis.call('HSET', key_of(q, 'rates'), unpack(values)) end
  buckets, filled = {}, {} -- the next queue has limits of its own
end

-- nil when the job may go through this limit now; else when to look again (ms), -1: when a slot is freed.
-- `has_kept`: it has its slot from an earlier run.
local function shut_until(q, limit, rule, has_kept)
  local held_until = not q.calm and not is_calm(q) and is_there(q, 'holds') and redis.call('ZSCORE', key_of(q, 'holds'), limit.n)
  if held_until and tonumber(held_until) > now_ms then return tonumber(held_until) end
  if rule.r then
    -- GCRA: `at` is when the bucket is empty again; a cost above the burst waits for a bucket that is.
    local burst = rule.b > limit.k and rule.b or limit.k
    local earliest = (buckets[limit.n] or bucket_of(q, limit.n)) + (limit.k - burst) * (rule.p / rule.r)
    if earliest > now_ms then return math.ceil(earliest) end
  end
  if rule.c and not has_kept and redis.call('SCARD', key_of(q, 'slots:' .. limit.n)) >= rule.c then return -1 end
end

-- Take what a run needs of a limit.
local function take(q, id, limit, rule)
  if rule.r then buckets[limit.n], filled[limit.n] = buckets[limit.n] + rule.p / rule.r * limit.k, true end
  if rule.c then redis.call('SADD', key_of(q, 'slots:' .. limit.n), id) end
end

-- `score`: where it stood before another limit, so that it does not wait a second time.
local function park(q, id, name, opens, score)
  park_at(q, name, id, score)
  if opens and opens >= 0 then redis.call('ZADD', key_of(q, 'gates'), 'NX', opens, name) end
end

-- This claim has taken a job that holds a slot: a consumer that runs its jobs one after the other takes one such job at a time.
local has_slot = false

-- Whether it has the slot of this limit from an earlier run: `until="finish"`.
local function keeps_slot(q, id, limit) return limit.f and redis.call('SISMEMBER', key_of(q, 'slots:' .. limit.n), id) == 1 end

-- 'go' (its share of every limit is taken), 'later' (it must wait for the next claim), or the limit that is shut and when it opens.
-- `from`: the limit at whose head the job stands; elsewhere it waits behind those that are parked. True: before all of them, as
-- is a job that kept a slot: others wait for it.
-- `shut`: the limits before which jobs stand that are not parked yet.
local function try_limits(q, id, ties, from, shut)
  local limits, rules, takes_slot, kept = ties.l, nil, false, nil
  for i = 1, #limits do
    if limits[i].f and keeps_slot(q, id, limits[i]) then
      kept, from = kept or {}, true
      kept[i] = true
    end
  end
  for i = 1, #limits do
    local limit = limits[i]
    local rule = q.calm and limit or rule_of(q, limit)
    if i > 1 then
      rules = rules or {}
      rules[i] = rule
    end
    takes_slot = takes_slot or rule.c
    if limit.n ~= from and from ~= true and (shut and shut[limit.n] or not q.calm and is_lined_up(q, limit.n)) then return limit.n end
    local opens = shut_until(q, limit, rule, kept and kept[i])
    if opens then return limit.n, opens end
  end
  if takes_slot and has_slot and flags < 2 then return 'later' end
  has_slot = has_slot or takes_slot
  take(q, id, limits[1], q.calm and limits[1] or rule_of(q, limits[1]))
  for i = 2, #limits do take(q, id, limits[i], rules[i]) end
  return 'go'
end

local function start(q, id, ties)
  if ties.i then it.with_inputs[#it.with_inputs + 1] = id end
  if ties.v then it.with_saved[#it.with_saved + 1] = id end
  if ties.s and redis.call('HGET', key_of(q, 'unique'), ties.u) == id then redis.call('HDEL', key_of(q, 'unique'), ties.u) end
end

-- Parked jobs whose gate is due, most urgent first, as far as they may go and are wanted. Returns whether more could.
local function through_gates(q, ids, records, want)
  local gates = key_of(q, 'gates')
  local due = redis.call('ZRANGEBYSCORE', gates, '-inf', now_ms, 'LIMIT', 0, 16)
  local more = #due == 16
  for _, name in ipairs(due) do
    local parked = key_of(q, 'parked:' .. name)
    local opens = nil
    while true do
      local id = redis.call('ZRANGE', parked, 0, 0)[1]
      if not id then
        redis.call('ZREM', gates, name)
        break
      elseif #ids >= want then
        more = true
        break
      end
      local record, ties = redis.call('HGET', q.jobs, id), ties_of(q, id)
      local where
      if not record or state_of(record) ~= LIVE or not it.may_run(q, id, record) then
        unpark(q, name, id)
      else
        where, opens = try_limits(q, id, ties, name)
        if where == 'go' then
          unpark(q, name, id)
          start(q, id, ties)
          ids[#ids + 1], records[#records + 1] = id, record
        elseif where == 'later' then
          more = true
          break
        elseif where == name then
          if opens < 0 then redis.call('ZREM', gates, name) else redis.call('ZADD', gates, opens, name) end
          break
        else
          local score = redis.call('ZSCORE', parked, id)
          unpark(q, name, id)
          park(q, id, where, opens, score)
        end
      end
    end
  end
  return more
end

-- A suspect that may not go now stands behind the other suspects; returns when to look again (ms), -1: when a slot is freed.
local function hold_suspect(q, ids, records)
  local ties = ties_of(q, ids[1])
  if not ties then return nil end
  local where, opens = 'go', nil
  if ties.l then where, opens = try_limits(q, ids[1], ties, true) end
  if where == 'go' then
    start(q, ids[1], ties)
    return nil
  end
  redis.call('RPUSH', q.suspects, ids[1])
  ids[1], records[1] = nil, nil
  return opens or -1
end

-- The head of a limit's queue, for a job that kept a slot.
local function first_of_all(q, id, ties, record)
  for _, limit in ipairs(ties.l) do
    if keeps_slot(q, id, limit) then return front_of(q, priority_of(record)) end
  end
end

-- Jobs that a claim has met before limits that are shut: parked together, when it has looked at all of them.
local met = {}

local function park_met(q, opens_of)
  if #met == 0 then return end
  local first, gap = arrivals(q, #met)
  local all, by_name = {}, {}
  for n, job in ipairs(met) do
    local id, record, name, front = unpack(job, 1, 4)
    local score = front or (100 - priority_of(record)) * LEVEL + first + (n - 1) * gap
    local some = by_name[name] or {}
    by_name[name] = some
    some[#some + 1], some[#some + 2] = score, id
    all[#all + 1], all[#all + 2] = score, id
  end
  q.calm, q.there = false, nil
  redis.call('ZADD', key_of(q, 'parked'), unpack(all))
  for name, some in pairs(by_name) do redis.call('ZADD', key_of(q, 'parked:' .. name), unpack(some)) end
  for name, opens in pairs(opens_of) do redis.call('ZADD', key_of(q, 'gates'), 'NX', opens, name) end
  met = {}
end

-- Of jobs taken from the queue, as many as are wanted of those that may go now stay in `ids` and `records`; the others are parked, or go back to the
-- head. Returns whether some went back.
local function hold_back(q, ids, records, first, want)
  local last = #ids
  if last < first then return false end
  local ties = all_ties(q, first == 1 and ids or {unpack(ids, first)})
  if not ties then return false end
  if last > first then read_buckets(q, ties) end
  local kept, back, back_records, shut, opens_of = first - 1, {}, {}, {}, {}
  for i = first, last do
    local id, record, tie = ids[i], records[i], ties[i - first + 1]
    local where, opens = 'go', nil
    if kept == want then
      where = 'later'
    elseif tie and tie.l then
      where, opens = try_limits(q, id, tie, nil, shut)
    end
    if where == 'go' then
      if tie and (tie.i or tie.v or tie.s) then start(q, id, tie) end
      kept = kept + 1
      if kept < i then ids[kept], records[kept] = id, record end
    elseif where == 'later' then
      back[#back + 1], back_records[#back_records + 1] = id, record
    else
      met[#met + 1] = {id, record, where, first_of_all(q, id, tie, record)}
      shut[where], opens_of[where] = true, opens_of[where] or opens and opens >= 0 and opens or nil
    end
  end
  for i = last, kept + 1, -1 do ids[i], records[i] = nil, nil end
  park_met(q, opens_of)
  put_front(q, back, back_records)
  return #back > 0
end

-- The earlier of `next_due` (ms, or -1) and the next gate.
local function next_gate(q, next_due)
  local first = redis.call('ZRANGE', key_of(q, 'gates'), 0, 0, 'WITHSCORES')
  if #first == 0 then return next_due end
  local wait = math.max(tonumber(first[2]) - now_ms, 0)
  return next_due >= 0 and math.min(next_due, wait) or wait
end
