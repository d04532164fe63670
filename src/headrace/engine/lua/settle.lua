#!lua flags=allow-oom
-- settle: store the outcomes of a batch, give up their claims, and claim the next jobs, queue by queue.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta wake stats watched cancels progress held
-- ARGV[1] layout  [2] session  [3] jobs wanted (0: none)  [4] may take a suspect (0/1)
--   then groups, each: queue number, kind, is suspect (0/1), count, then per kind and job:
--   s f c: id, keep ms, record   r p: id, delay ms, record   d: id, 0, result (a msgpack bin) or whole ended record, for waiters   l: id, 0, ''
-- returns {ids no longer ours (nothing was written for them), {{queue number, claim…}, …}}
-- include: record
-- include: place
-- include: ending
-- include: claim
local session, want = ARGV[2], tonumber(ARGV[3])
local queues, metas = {}, {}
for n = 1, #KEYS / KEYS_PER_QUEUE do
  local q = queue_at(n)
  if not redis.call('ZSCORE', q.sessions, session) then return redis.error_reply('GONE ' .. session) end
  metas[n] = redis.call('HMGET', q.meta, 'layout', 'paused', 'fence')
  local wrong = layout_error(metas[n][1])
  if wrong then return wrong end
  queues[n] = q
end
local now_ms, now_us = now()
local lost = {}

-- The offsets in ARGV of the jobs of a group that this session still holds; their claims are given up.
local function take_ours(q, first, count)
  local ids, ours = {}, {}
  for i = 1, count do ids[i] = ARGV[first + 3 * i - 3] end
  if count == 1 then
    if redis.call('SREM', q.held, ids[1]) == 1 then return {first}, ids end
    lost[#lost + 1] = ids[1]
    return ours, {}
  end
  local flags = redis.call('SMISMEMBER', q.held, unpack(ids))
  local kept = {}
  for i = 1, count do
    if flags[i] == 1 then
      ours[#ours + 1] = first + 3 * i - 3
      kept[#kept + 1] = ids[i]
    else
      lost[#lost + 1] = ids[i]
    end
  end
  if #kept > 0 then redis.call('SREM', q.held, unpack(kept)) end
  return ours, kept
end

local function store(q, ours)
  local fields = {}
  for i = 1, #ours do
    fields[2 * i - 1], fields[2 * i] = ARGV[ours[i]], ARGV[ours[i] + 2]
  end
  redis.call('HSET', q.jobs, unpack(fields))
end

local function tell_all(q, ours, ids, is_dropped)
  if redis.call('EXISTS', q.watched) == 0 then return end
  local tokens = redis.call('HMGET', q.watched, unpack(ids))
  for i = 1, #ids do
    if tokens[i] then
      local record = ARGV[ours[i] + 2]
      local old = is_dropped and redis.call('HGET', q.jobs, ids[i])
      if old and string.byte(record, 1) ~= 0x9f then record = with_result(old, record) end
      tell(q, ids[i], tokens[i], record)
    end
  end
end

local COUNTERS = {s = 'succeeded', d = 'succeeded', f = 'failed', c = 'cancelled', r = 'retried', p = 'parked', l = 'released'}
local ENDS = {s = 'done', c = 'done', f = 'dead'}

-- A job that was asked to stop does not come back: it ends as cancelled instead of being retried.
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

local function settle_group(q, kind, is_suspect, ours, ids)
  if kind == 'r' or kind == 'p' then
    ours, ids = drop_cancelled(q, ours, ids)
    if #ids == 0 then return end
  end
  redis.call('HINCRBY', q.stats, COUNTERS[kind], #ids)
  if kind == 'd' then
    tell_all(q, ours, ids, true)
    redis.call('HDEL', q.jobs, unpack(ids))
  elseif ENDS[kind] then
    store(q, ours)
    local members = {}
    for i = 1, #ours do
      members[2 * i - 1], members[2 * i] = now_ms + ARGV[ours[i] + 1], ids[i]
    end
    redis.call('ZADD', q[ENDS[kind]], unpack(members))
    tell_all(q, ours, ids)
  elseif kind == 'l' then
    local records = redis.call('HMGET', q.jobs, unpack(ids))
    if is_suspect then
      for i = #ids, 1, -1 do redis.call('LPUSH', q.suspects, ids[i]) end
    else
      put_front(q, ids, records)
    end
    ring(q)
    return
  else
    store(q, ours)
    local soon, records = {}, {}
    for i = 1, #ours do
      local delay = tonumber(ARGV[ours[i] + 1])
      if delay > 0 then
        redis.call('ZADD', q.delayed, now_ms + delay, ids[i])
      else
        soon[#soon + 1], records[#records + 1] = ids[i], ARGV[ours[i] + 2]
      end
    end
    put_back(q, soon, records)
    ring(q)
  end
  if is_suspect then redis.call('HDEL', q.crashes, unpack(ids)) end
end

local at = 5
while at <= #ARGV do
  local q, kind, is_suspect, count = queues[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2] == '1', tonumber(ARGV[at + 3])
  local ours, ids = take_ours(q, at + 4, count)
  if #ids > 0 then settle_group(q, kind, is_suspect, ours, ids) end
  at = at + 4 + 3 * count
end

local claims = {}
local take_suspects = ARGV[4] == '1'
for n = 1, #queues do
  if want <= 0 then break end
  local claim = claim_from(queues[n], metas[n], want, take_suspects, now_ms, now_us)
  claims[#claims + 1] = {n, unpack(claim)}
  if claim[5] == 1 then break end
  want = want - #claim[6]
  if #claim[6] > 0 then take_suspects = false end
end
return {lost, claims}
