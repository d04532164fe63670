-- Take jobs for a session. `meta` is {layout, paused, last fence} of this queue.
local ROUNDS = 4 -- how often one claim looks past cancelled and expired entries before it answers `more`

local function pop(q, want, has_priority)
  local ids = {}
  if has_priority then
    ids = redis.call('ZRANGEBYSCORE', q.priority, '-inf', '(' .. string.format('%.0f', 100 * LEVEL), 'LIMIT', 0, want)
    if #ids > 0 then redis.call('ZREM', q.priority, unpack(ids)) end
  end
  if #ids < want then
    local plain = redis.call('LPOP', q.ready, want - #ids)
    if #ids == 0 and plain then
      ids = plain
    elseif plain then
      for i = 1, #plain do ids[#ids + 1] = plain[i] end
    end
  end
  if has_priority and #ids < want then
    local low = redis.call('ZRANGE', q.priority, 0, want - #ids - 1)
    if #low > 0 then redis.call('ZREM', q.priority, unpack(low)) end
    for i = 1, #low do ids[#ids + 1] = low[i] end
  end
  return ids
end

-- Keep what may run; drop cancelled and deleted entries, end expired ones, put newer layouts off.
local function keep_live(q, ids, records, into_ids, into_records, now_ms)
  local layout = tonumber(ARGV[1])
  for i = 1, #ids do
    local record = records[i]
    if record and state_of(record) == LIVE then
      local expires = expires_of(record)
      if string.byte(record, 2) > layout then
        redis.call('ZADD', q.delayed, now_ms + 30000, ids[i])
      elseif expires > 0 and expires <= now_ms then
        redis.call('HDEL', q.crashes, ids[i])
        finish(q, ids[i], with_state(record, EXPIRED), q.done, now_ms + DAY_MS, 'expired')
      else
        into_ids[#into_ids + 1] = ids[i]
        into_records[#into_records + 1] = record
      end
    end
  end
end

-- Returns {fence, next due ms or -1, more, suspects waiting, is suspect, ids, records}.
local function claim_from(q, meta, want, take_suspects, now_ms, now_us)
  local ids, records, more, is_suspect, suspects_waiting = {}, {}, 0, 0, 0
  if meta[2] then return {'0', -1, 0, 0, 0, ids, records} end
  -- One look tells whether anything but plain ready jobs is there; mostly nothing is.
  local next_due, has_priority = -1, false
  if redis.call('EXISTS', q.delayed, q.suspects, q.priority) > 0 then
    next_due = promote(q, now_ms)
    has_priority = redis.call('EXISTS', q.priority) == 1
    local id = take_suspects and redis.call('LPOP', q.suspects)
    if id then
      keep_live(q, {id}, {redis.call('HGET', q.jobs, id)}, ids, records, now_ms)
      is_suspect, more = #ids, 1
    elseif not take_suspects then
      suspects_waiting = redis.call('EXISTS', q.suspects)
    end
  end
  if is_suspect == 0 then
    for round = 1, ROUNDS do
      local missing = want - #ids
      local popped = pop(q, missing, has_priority)
      if #popped > 0 then
        keep_live(q, popped, redis.call('HMGET', q.jobs, unpack(popped)), ids, records, now_ms)
      end
      more = #popped == missing and 1 or 0
      if more == 0 or #ids == want then break end
    end
  end
  if #ids == 0 then return {'0', next_due, more, suspects_waiting, 0, ids, records} end
  redis.call('SADD', q.held, unpack(ids))
  local fence = math.max((tonumber(meta[3]) or 0) + 1, now_us)
  fence = string.format('%.0f', fence) -- tostring keeps 14 digits only
  redis.call('HSET', q.meta, 'fence', fence)
  if more == 1 and redis.call('EXISTS', q.ready, q.suspects, q.priority) > 0 then ring(q) end
  return {fence, next_due, more, suspects_waiting, is_suspect, ids, records}
end
