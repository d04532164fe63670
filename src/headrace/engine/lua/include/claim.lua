-- Take jobs for a session. `meta` is {layout, paused, last fence, most running} of this queue.
local ROUNDS, MOST_LOOKED_AT = 4, 2000 -- how far one claim looks past what may not run before it answers `more`

local function pop(q, want, has_priority, has_groups)
  if not has_priority and not has_groups then return redis.call('LPOP', q.ready, want) or {} end
  if has_groups and rare().ageing_of(q) then return rare().take_turns(q, want, pop) end
  local level = string.format('(%.17g', rare().front_of(q, 0))
  local ids = redis.call('ZRANGEBYSCORE', q.priority, '-inf', level, 'LIMIT', 0, want)
  if #ids > 0 then redis.call('ZREM', q.priority, unpack(ids)) end
  local missing = want - #ids
  local plain = missing == 0 and {} or has_groups and rare().take_turns(q, missing) or redis.call('LPOP', q.ready, missing) or {}
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
  local next_due, has_priority, has_ties, has_groups, weighs, is_taken, suspect_opens = -1, false, false, false, false, false, nil
  if meta[4] then want = math.min(want, rare().room(q, tonumber(meta[4]))) end
  if meta[2] or want < 1 then return ids, records, '0', next_due, more, suspects_waiting, is_suspect end
  -- One look tells whether anything but plain ready jobs is there; mostly nothing is.
  if redis.call('EXISTS', q.delayed, q.suspects, q.priority, q.ties) > 0 then
    if redis.call('EXISTS', q.delayed) == 1 then next_due = rare().promote(q, now_ms) end
    has_priority, has_ties = redis.call('EXISTS', q.priority) == 1, redis.call('EXISTS', q.ties) == 1
    local id = take_suspects and redis.call('LPOP', q.suspects)
    if id then
      keep_live(q, {id}, ids, records)
      if has_ties and #ids == 1 then
        suspect_opens = rare().gates().hold_suspect(q, ids, records)
        rare().gates().write_buckets(q)
      end
      is_suspect = #ids
      if is_suspect == 1 then more, is_taken = 1, true end
    elseif not take_suspects then
      suspects_waiting = redis.call('EXISTS', q.suspects)
    end
  end
  if not is_taken then
    local is_held_back = false
    if has_ties then
      has_groups = redis.call('EXISTS', string.sub(q.jobs, 1, -5) .. 'groups') == 1
      weighs = redis.call('HEXISTS', q.meta, 'weighs') == 1
      is_held_back = weighs and rare().gates().through_gates(q, ids, records, want)
    end
    local looked_at, all_shut = 0, false
    for round = 1, weighs and MOST_LOOKED_AT or ROUNDS do
      local missing, first = want - #ids, #ids + 1
      if missing == 0 or looked_at >= MOST_LOOKED_AT then break end
      if weighs then
        -- A few at first: of jobs that hold slots one is handed out, and the others go back. Where all were parked, more than are wanted.
        local some = 2 * 8 ^ math.min(round - 1, 2)
        missing = all_shut and some or math.min(missing, some)
      end
      local popped = pop(q, missing, has_priority, has_groups)
      looked_at = looked_at + #popped
      if #popped > 0 then keep_live(q, popped, ids, records) end
      more = #popped == missing and 1 or 0
      if weighs and rare().gates().hold_back(q, ids, records, first, want) then
        is_held_back = true
        break
      end
      all_shut = #ids < first
      if more == 0 or #ids == want then break end
    end
    if is_held_back then more = 1 end
    if weighs then
      next_due = rare().gates().next_gate(q, next_due)
      if suspect_opens and suspect_opens >= 0 then
        local wait = math.max(suspect_opens - now_ms, 0)
        next_due = next_due >= 0 and math.min(next_due, wait) or wait
      end
      rare().gates().write_buckets(q)
    end
  end
  if #ids == 0 then return ids, records, '0', next_due, more, suspects_waiting, 0 end
  redis.call('SADD', q.held, unpack(ids))
  -- Strictly grows, also over a failover that lost the last one; tostring would keep 14 digits only.
  local fence = string.format('%.0f', math.max((tonumber(meta[3]) or 0) + 1, now_us))
  redis.call('HSET', q.meta, 'fence', fence)
  -- Another may find work at once; or must know when the next gate opens, now that this one has something to do.
  if (weighs or has_groups) and (more == 1 or next_due >= 0) or more == 1 and redis.call('EXISTS', q.ready, q.suspects, q.priority) > 0 then
    redis.call('ZADD', q.wake, 0, '1')
  end
  return ids, records, fence, next_due, more, suspects_waiting, is_suspect
end
