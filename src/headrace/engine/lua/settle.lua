#!lua flags=allow-oom
-- settle: store the outcomes of a batch, give up their claims, and claim the next jobs, queue by queue.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta wake stats watched cancels progress lingering ties held
-- ARGV[1] layout  [2] session  [3] jobs wanted (0: none)  [4] may take a suspect (0/1), + 2: jobs run side by side
--   then groups, each: queue number, kind, is suspect (0/1), count, then per kind and job:
--   s f c: id, keep ms, record   r p: id, delay ms, record   d: id, 0, result (a msgpack bin) or whole ended record, for waiters   l: id, 0, ''
-- returns {ids no longer ours (nothing was written for them) or 0, then for each queue that was asked:
--   its number, fence, ms until its next due job or -1, more (0/1), suspects waiting (0/1), is suspect (0/1), ids, records;
--   and, if there are any, the numbers of queues with something in their outbox, the claimed ids that have inputs, and those
--   that have a checkpoint}
local LAYOUT, session, want, flags = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local queues, metas = {}, {}
for n = 1, #KEYS / KEYS_PER_QUEUE do
  local q = queue_at(n)
  if not redis.call('ZSCORE', q.sessions, session) then return redis.error_reply('GONE ' .. session) end
  local meta = redis.call('HMGET', q.meta, 'layout', 'paused', 'fence', 'max_running', 'indexed')
  if meta[1] and tonumber(meta[1]) > LAYOUT then return redis.error_reply('LAYOUT ' .. meta[1]) end
  queues[n], metas[n], q.indexed = q, meta, meta[5]
end
local time = redis.call('TIME')
local now_ms, now_us = time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
local lost, rare_ones = {}, nil

-- What most calls never need, made when one does, in three parts: this script runs for every job, and each function costs it 60 ns.
local function rare()
  if rare_ones then return rare_ones end
  -- include: record
  -- include: ties
  -- include: place
  -- include: ending
  -- include: turns
  local it = {
    front_of = front_of, ageing_of = ageing_of, promote = promote, take_turns = take_turns, tell = tell, drop_kept = drop_kept,
    with_result = with_result, all_ties = all_ties, has_reader = has_reader, untie = untie, untie_rest = untie_rest, key_of = key_of,
    with_inputs = {}, with_saved = {}, -- claimed jobs whose worker must fetch what others sent; or an earlier run saved
  }
  rare_ones = it

  -- A claimed job that expires, or that a newer headrace wrote: it runs, ends, or is put off.
  function it.may_run(q, id, record)
    if string.byte(record, 2) > LAYOUT then
      redis.call('HDEL', q.crashes, id) -- a suspect waits among suspects or is none
      redis.call('ZADD', q.delayed, now_ms + 30000, id)
      return false
    end
    local expires = expires_of(record)
    if expires == 0 or expires > now_ms then return true end
    redis.call('HDEL', q.crashes, id)
    finish(q, id, with_state(record, EXPIRED), q.done, now_ms + DAY_MS, 'expired')
    return false
  end

  function it.follow(q)
    if #ended_jobs == 0 then return end
    -- include: edges
    follow(q)
  end

  function it.index()
    if it.index_drop then return it end
    -- include: index
    it.index_drop, it.index_again = index_drop, index_again
    return it
  end

  local gates
  function it.gates()
    if gates then return gates end
    -- include: limits
    gates = {
      write_buckets = write_buckets, hold_back = hold_back, through_gates = through_gates, next_gate = next_gate, hold_suspect = hold_suspect,
    }
    return gates
  end

  -- How many more jobs of the queue may run.
  function it.room(q, most)
    local running = 0
    for _, holder in ipairs(redis.call('ZRANGE', q.sessions, 0, -1)) do running = running + redis.call('SCARD', key_of(q, 'held:' .. holder)) end
    return most - running
  end

  -- To the head of its queue, uncharged: it has not run.
  function it.let_go(q, ids, is_suspect)
    redis.call('HINCRBY', q.stats, 'released', #ids)
    loosen_all(q, ids, true)
    if is_suspect then
      for i = #ids, 1, -1 do redis.call('LPUSH', q.suspects, ids[i]) end
    else
      put_front(q, ids, redis.call('HMGET', q.jobs, unpack(ids)))
    end
    ring(q)
  end

  -- A job that was asked to stop does not come back: it ends as cancelled instead.
  local function drop_cancelled(q, ours, ids)
    if redis.call('EXISTS', q.cancels) == 0 then return ours, ids end
    local kept_ours, kept_ids = {}, {}
    for i = 1, #ids do
      if is_cancel_asked(q, ids[i]) then
        redis.call('HDEL', q.crashes, ids[i])
        finish(q, ids[i], with_state(ARGV[ours[i] + 2], CANCELLED), q.done, now_ms + DAY_MS, 'cancelled')
      else
        kept_ours[#kept_ours + 1], kept_ids[#kept_ids + 1] = ours[i], ids[i]
      end
    end
    return kept_ours, kept_ids
  end

  -- An attempt has failed: these are found by that, too.
  function it.note_errors(q, ours, ids)
    local records = {}
    for i = 1, #ours do records[i] = ARGV[ours[i] + 2] end
    it.index().index_again(q, ids, records)
  end

  -- Again later, or at once at the tail. Returns the ids that are not cancelled.
  function it.put_off(q, counter, ours, ids)
    ours, ids = drop_cancelled(q, ours, ids)
    if #ids == 0 then return ids end
    loosen_all(q, ids, false)
    redis.call('HINCRBY', q.stats, counter, #ids)
    local soon, records = {}, {}
    for i = 1, #ours do
      local delay, record = tonumber(ARGV[ours[i] + 1]), ARGV[ours[i] + 2]
      redis.call('HSET', q.jobs, ids[i], record)
      if delay > 0 then
        redis.call('ZADD', q.delayed, now_ms + delay, ids[i])
      else
        soon[#soon + 1], records[#records + 1] = ids[i], record
      end
    end
    put_back(q, soon, records)
    ring(q)
    if q.indexed then it.note_errors(q, ours, ids) end
    return ids
  end
  return it
end

-- include: claim
-- The offsets in ARGV of the jobs of a group that this session still holds, and their ids; their claims are given up.
local function take_ours(q, first, count)
  if count == 1 then
    if redis.call('SREM', q.held, ARGV[first]) == 1 then return {first}, {ARGV[first]} end
    lost[#lost + 1] = ARGV[first]
    return {}, {}
  end
  local ids, ours, kept = {}, {}, {}
  for i = 1, count do ids[i] = ARGV[first + 3 * i - 3] end
  local flags = redis.call('SMISMEMBER', q.held, unpack(ids))
  for i = 1, count do
    if flags[i] == 1 then
      ours[#ours + 1], kept[#kept + 1] = first + 3 * i - 3, ids[i]
    else
      lost[#lost + 1] = ids[i]
    end
  end
  if #kept > 0 then redis.call('SREM', q.held, unpack(kept)) end
  return ours, kept
end

local DROPPED = '\159\1\6' -- as much of a succeeded record as says so

local function tell_all(q, ours, ids, is_dropped)
  local tokens = redis.call('EXISTS', q.watched) == 1 and redis.call('HMGET', q.watched, unpack(ids)) or {}
  for i = 1, #ids do
    if tokens[i] then
      local record = ARGV[ours[i] + 2]
      local old = is_dropped and redis.call('HGET', q.jobs, ids[i])
      if old and string.byte(record, 1) ~= 0x9f then record = rare().with_result(old, record) end
      rare().tell(q, ids[i], tokens[i], record)
      if is_dropped and string.find(tokens[i], '%f[%w]k%f[%W]') then rare().drop_kept(q, ids[i]) end
    end
  end
  local ties = rare().all_ties(q, ids)
  if not ties then return end
  local rest, untie = {n = 0, ids = {}, keys = {}, owners = {}, inputs = {}}, rare().untie
  for i = 1, #ids do
    if ties[i] then
      local record = is_dropped and DROPPED or ARGV[ours[i] + 2]
      if is_dropped and ties[i].e and rare().has_reader(ties[i]) then
        record = ARGV[ours[i] + 2]
        if string.byte(record, 1) ~= 0x9f then record = rare().with_result(redis.call('HGET', q.jobs, ids[i]), record) end
      end
      untie(q, ids[i], ties[i], record, rest)
    end
  end
  rare().untie_rest(q, rest)
end

local function settle_group(q, kind, is_suspect, ours, ids)
  if kind == 'd' then
    redis.call('HINCRBY', q.stats, 'succeeded', #ids)
    if redis.call('EXISTS', q.watched, q.ties) > 0 then tell_all(q, ours, ids, true) end
    redis.call('HDEL', q.jobs, unpack(ids))
    if q.indexed then rare().index().index_drop(q, ids) end
  elseif kind == 's' or kind == 'f' or kind == 'c' then
    redis.call('HINCRBY', q.stats, kind == 's' and 'succeeded' or kind == 'f' and 'failed' or 'cancelled', #ids)
    local fields, members = {}, {}
    for i = 1, #ours do
      local at = ours[i]
      fields[2 * i - 1], fields[2 * i] = ids[i], ARGV[at + 2]
      members[2 * i - 1], members[2 * i] = now_ms + ARGV[at + 1], ids[i]
    end
    redis.call('HSET', q.jobs, unpack(fields))
    redis.call('ZADD', kind == 'f' and q.dead or q.done, unpack(members))
    if q.indexed and kind == 'f' then rare().note_errors(q, ours, ids) end
    if redis.call('EXISTS', q.watched, q.ties) > 0 then tell_all(q, ours, ids) end
  elseif kind == 'l' then
    return rare().let_go(q, ids, is_suspect)
  else
    ids = rare().put_off(q, kind == 'r' and 'retried' or 'parked', ours, ids)
  end
  if is_suspect and #ids > 0 then redis.call('HDEL', q.crashes, unpack(ids)) end
end

local at = 5
while at <= #ARGV do
  local q, count = queues[tonumber(ARGV[at])], tonumber(ARGV[at + 3])
  local ours, ids = take_ours(q, at + 4, count)
  if #ids > 0 then settle_group(q, ARGV[at + 1], ARGV[at + 2] == '1', ours, ids) end
  if rare_ones then rare_ones.follow(q) end
  if metas[tonumber(ARGV[at])][4] then redis.call('ZADD', q.wake, 0, '1') end
  at = at + 4 + 3 * count
end

local reply = {#lost > 0 and lost or 0} -- flat: each table in a reply costs the server 0.3 µs
local take_suspects = flags % 2 == 1
for n = 1, #queues do
  if want <= 0 then break end
  local ids, records, fence, due, more, waiting, is_suspect = claim_from(queues[n], metas[n], want, take_suspects)
  if rare_ones then rare_ones.follow(queues[n]) end -- a job that expired as it was claimed has ended, too
  local last = #reply
  reply[last + 1], reply[last + 2], reply[last + 3], reply[last + 4] = n, fence, due, more
  reply[last + 5], reply[last + 6], reply[last + 7], reply[last + 8] = waiting, is_suspect, ids, records
  if is_suspect == 1 then break end
  want = want - #ids
  if #ids > 0 then take_suspects = false end
end
if rare_ones then
  local outboxes = {}
  for n = 1, #queues do
    if redis.call('EXISTS', rare_ones.key_of(queues[n], 'outbox')) == 1 then outboxes[#outboxes + 1] = n end
  end
  if #outboxes + #rare_ones.with_inputs + #rare_ones.with_saved > 0 then
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = outboxes, rare_ones.with_inputs, rare_ones.with_saved
  end
end
return reply
