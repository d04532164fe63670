-- Take jobs for a session. `meta` is {layout, paused, last fence} of this queue.
local ROUNDS = 4 -- how often one claim looks past cancelled and expired entries before it answers `more`

local function pop(q, want, has_priority)
  if not has_priority then return redis.call('LPOP', q.ready, want) or {} end
  local level = string.format('(%.0f', 100 * rare().LEVEL)
  local ids = redis.call('ZRANGEBYSCORE', q.priority, '-inf', level, 'LIMIT', 0, want)
  if #ids > 0 then redis.call('ZREM', q.priority, unpack(ids)) end
  local plain = #ids < want and redis.call('LPOP', q.ready, want - #ids) or {}
  for i = 1, #plain do ids[#ids + 1] = plain[i] end
  if #ids < want then
    local low = redis.call('ZRANGE', q.priority, 0, want - #ids - 1)
    if #low > 0 then redis.call('ZREM', q.priority, unpack(low)) end
    for i = 1, #low do ids[#ids + 1] = low[i] end
  end
  return ids
end

-- Keep what may run; drop cancelled and deleted entries, end expired ones, put newer layouts off.
local function keep_live(q, ids, into_ids, into_records)
  local records = redis.call('HMGET', q.jobs, unpack(ids))
  for i = 1, #ids do
    local record = records[i]
    -- Byte 2 is the layout, 3 the state (3: live), 4 tells whether the job expires: see include/record.lua.
    local layout, state, expiry = string.byte(record or '', 2, 4)
    if state == 3 then
      if layout <= LAYOUT and expiry ~= 0xcf then
        into_ids[#into_ids + 1], into_records[#into_records + 1] = ids[i], record
      elseif rare().may_run(q, ids[i], record) then
        into_ids[#into_ids + 1], into_records[#into_records + 1] = ids[i], record
      end
    else
      redis.call('SREM', q.lingering, ids[i])
    end
  end
end

-- Returns ids, records, fence, next due ms or -1, more, suspects waiting, is suspect.
local function claim_from(q, meta, want, take_suspects)
  local ids, records, more, is_suspect, suspects_waiting = {}, {}, 0, 0, 0
  local next_due, has_priority = -1, false
  if meta[2] then return ids, records, '0', next_due, more, suspects_waiting, is_suspect end
  -- One look tells whether anything but plain ready jobs is there; mostly nothing is.
  if redis.call('EXISTS', q.delayed, q.suspects, q.priority) > 0 then
    next_due = rare().promote(q, now_ms)
    has_priority = redis.call('EXISTS', q.priority) == 1
    local id = take_suspects and redis.call('LPOP', q.suspects)
    if id then
      keep_live(q, {id}, ids, records)
      is_suspect, more = #ids, 1
    elseif not take_suspects then
      suspects_waiting = redis.call('EXISTS', q.suspects)
    end
  end
  if is_suspect == 0 then
    for round = 1, ROUNDS do
      local missing = want - #ids
      local popped = pop(q, missing, has_priority)
      if #popped > 0 then keep_live(q, popped, ids, records) end
      more = #popped == missing and 1 or 0
      if more == 0 or #ids == want then break end
    end
  end
  if #ids == 0 then return ids, records, '0', next_due, more, suspects_waiting, 0 end
  redis.call('SADD', q.held, unpack(ids))
  -- Strictly grows, also over a failover that lost the last one; tostring would keep 14 digits only.
  local fence = string.format('%.0f', math.max((tonumber(meta[3]) or 0) + 1, now_us))
  redis.call('HSET', q.meta, 'fence', fence)
  if more == 1 and redis.call('EXISTS', q.ready, q.suspects, q.priority) > 0 then redis.call('ZADD', q.wake, 0, '1') end
  return ids, records, fence, next_due, more, suspects_waiting, is_suspect
end
