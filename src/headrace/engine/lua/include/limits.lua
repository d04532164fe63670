-- Claims of jobs that limits hold back, or that take turns by group. A job over a limit is parked: no slot, no attempt, no
-- polling. It stands in the limit's own order, by priority, then arrival, until the gate is due or a slot is freed.

-- When a limit's bucket is empty again, ms: read once a claim, written at its end.
local function bucket_of(q, name)
  q.buckets = q.buckets or {}
  q.buckets[name] = q.buckets[name] or tonumber(redis.call('HGET', key_of(q, 'rates'), name)) or 0
  return math.max(q.buckets[name], now_ms)
end

local function write_buckets(q)
  for name, at in pairs(q.filled or {}) do redis.call('HSET', key_of(q, 'rates'), name, string.format('%.3f', at)) end
  q.filled = nil
end

-- nil when the job may go through this limit now; else when to look again (ms), -1: when a slot is freed.
-- `has_kept`: it has its slot from an earlier run.
local function shut_until(q, limit, rule, has_kept)
  local held_until = not is_calm(q) and redis.call('ZSCORE', key_of(q, 'holds'), limit.n)
  if held_until and tonumber(held_until) > now_ms then return tonumber(held_until) end
  if rule.r then
    -- GCRA: `at` is when the bucket is empty again; a cost above the burst waits for a bucket that is.
    local step = rule.p / rule.r
    local at = bucket_of(q, limit.n)
    local earliest = at + step * limit.k - step * math.max(rule.b, limit.k)
    if earliest > now_ms then return math.ceil(earliest) end
  end
  if rule.c and not has_kept and redis.call('SCARD', key_of(q, 'slots:' .. limit.n)) >= rule.c then return -1 end
end

-- Take what a run needs of each limit.
local function take_limits(q, id, limits, rules)
  for i, limit in ipairs(limits) do
    local rule = rules[i]
    if rule.r then
      q.filled = q.filled or {}
      q.filled[limit.n] = bucket_of(q, limit.n) + rule.p / rule.r * limit.k
      q.buckets[limit.n] = q.filled[limit.n]
    end
    if rule.c then redis.call('SADD', key_of(q, 'slots:' .. limit.n), id) end
  end
end

-- `score`: where it stood before another limit, so that it does not wait a second time.
local function park(q, id, record, name, opens, score)
  score = score or (100 - priority_of(record)) * LEVEL + arrivals(q, 1)
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
local function try_limits(q, id, ties, from)
  local rules, takes_slot, kept = {}, false, {}
  for i, limit in ipairs(ties.l) do
    kept[i] = keeps_slot(q, id, limit)
    if kept[i] then from = true end
  end
  for i, limit in ipairs(ties.l) do
    local rule = rule_of(q, limit)
    rules[i], takes_slot = rule, takes_slot or rule.c
    if limit.n ~= from and from ~= true and not is_calm(q) and redis.call('EXISTS', key_of(q, 'parked:' .. limit.n)) == 1 then return limit.n end
    local opens = shut_until(q, limit, rule, kept[i])
    if opens then return limit.n, opens end
  end
  if takes_slot and has_slot and flags < 2 then return 'later' end
  has_slot = has_slot or takes_slot
  take_limits(q, id, ties.l, rules)
  return 'go'
end

local with_inputs, with_saved = {}, {} -- claimed jobs whose worker must fetch what others sent; or an earlier run saved

local function start(q, id, ties)
  if ties.i then with_inputs[#with_inputs + 1] = id end
  if ties.v then with_saved[#with_saved + 1] = id end
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
          park(q, id, record, where, opens, score)
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

-- Of jobs taken from the queue, those that may go now stay in `ids` and `records`; the others are parked, or go back to the head.
local function hold_back(q, ids, records, first)
  local last = #ids
  if last < first then return false end
  local ties = all_ties(q, first == 1 and ids or {unpack(ids, first)})
  if not ties then return false end
  local kept, back, back_records = first - 1, {}, {}
  for i = first, last do
    local id, record, tie = ids[i], records[i], ties[i - first + 1]
    local where, opens = 'go', nil
    if tie and tie.l then
      where, opens = try_limits(q, id, tie)
    end
    if where == 'go' then
      if tie then start(q, id, tie) end
      kept = kept + 1
      if kept < i then ids[kept], records[kept] = id, record end
    elseif where == 'later' then
      back[#back + 1], back_records[#back_records + 1] = id, record
    else
      park(q, id, record, where, opens, first_of_all(q, id, tie, record))
    end
  end
  for i = last, kept + 1, -1 do ids[i], records[i] = nil, nil end
  put_front(q, back, back_records)
  return #back > 0
end

-- One job of each group in turn; a group of weight 3 has three turns for one. Ungrouped jobs are a group of their own, ''.
-- Start-time fair queueing (Goyal, Vin, Cheng 1996) with the weight that a group's last job named. The turns are planned here, over
-- the groups that stand first, so that each list is asked and taken from once.
-- `pop`: where jobs without a group age, and stand in an order of their own, these are taken so.
local function take_turns(q, want, pop)
  local groups = key_of(q, 'groups')
  if redis.call('EXISTS', q.ready, pop and q.priority or q.ready) > 0 then take_part(q, '') end
  local first = redis.call('ZRANGE', groups, 0, want - 1, 'WITHSCORES')
  if #first == 0 then return {} end
  local names, line = {}, {}
  for n = 1, #first, 2 do names[#names + 1] = first[n] end
  local weights = redis.call('EXISTS', key_of(q, 'weights')) == 1 and redis.call('HMGET', key_of(q, 'weights'), unpack(names)) or {}
  for n, name in ipairs(names) do
    local lane = name == '' and q.ready or key_of(q, 'group:' .. name)
    line[n] = {name = name, at = tonumber(first[2 * n]), step = 1 / (weights[n] or 1), lane = lane, turns = {}}
  end
  local taken, head, asked = 0, 1, {} -- `line` is in order of `at` from `head` on
  while taken < want and line[head] do
    local group = line[head]
    if not group.left then
      group.left = redis.call('LLEN', group.lane) + (pop and group.name == '' and redis.call('ZCARD', q.priority) or 0)
      asked[#asked + 1] = group
    end
    head = head + 1
    if group.left > 0 then
      taken, q.turn = taken + 1, group.at
      group.turns[#group.turns + 1], group.left, group.at = taken, group.left - 1, group.at + group.step
      if group.left > 0 then
        local place = #line + 1
        while place > head and line[place - 1].at > group.at do place = place - 1 end
        table.insert(line, place, group)
      end
    end
  end
  local ids, later, empty = {}, {}, {}
  for _, group in ipairs(asked) do
    local count = #group.turns
    local some = count > 0 and (pop and group.name == '' and pop(q, count, true) or redis.call('LPOP', group.lane, count))
    for i, turn in ipairs(group.turns) do ids[turn] = some[i] end
    if group.left > 0 then
      later[#later + 1], later[#later + 2] = string.format('%.17g', group.at), group.name
    else
      empty[#empty + 1] = group.name
    end
  end
  if #later > 0 then redis.call('ZADD', groups, unpack(later)) end
  if #empty > 0 then redis.call('ZREM', groups, unpack(empty)) end
  if #ids > 0 then redis.call('HSET', q.meta, 'turn', string.format('%.17g', q.turn)) end
  return ids
end

-- The earlier of `next_due` (ms, or -1) and the next gate.
local function next_gate(q, next_due)
  local first = redis.call('ZRANGE', key_of(q, 'gates'), 0, 0, 'WITHSCORES')
  if #first == 0 then return next_due end
  local wait = math.max(tonumber(first[2]) - now_ms, 0)
  return next_due >= 0 and math.min(next_due, wait) or wait
end
