-- Where one job stands, for `check` and its repair. Reads whole lists.
local function in_set(key, id) return redis.call('ZSCORE', key, id) and 1 or 0 end

-- State and priority as two characters; '\0\101' when the state is none that we know, '' when there is no record.
local function mark_of(record)
  if not record then return '' end
  local state = state_of(record)
  if state ~= LIVE and (not state or state < 6 or state > EXPIRED) then return '\0e' end
  return string.char(state, 101 + priority_of(record))
end

local function in_group(q, id, ties)
  return ties and ties.g and #redis.call('LPOS', key_of(q, 'group:' .. ties.g), id, 'COUNT', 0) or 0
end

local function seat_of(q, id)
  local ties = ties_of(q, id)
  local holders = {}
  local sessions = redis.call('ZRANGE', q.sessions, 0, -1)
  for n = 1, #sessions do
    if redis.call('SISMEMBER', base_of(q) .. 'held:' .. sessions[n], id) == 1 then holders[#holders + 1] = sessions[n] end
  end
  return {
    mark_of(redis.call('HGET', q.jobs, id)), #redis.call('LPOS', q.ready, id, 'COUNT', 0),
    redis.call('ZSCORE', q.priority, id) or '', in_set(q.delayed, id), #redis.call('LPOS', q.suspects, id, 'COUNT', 0),
    in_set(q.done, id), in_set(q.dead, id), table.concat(holders, '\0'), redis.call('HEXISTS', q.crashes, id),
    redis.call('SISMEMBER', q.cancels, id), redis.call('HGET', q.watched, id) or '',
    redis.call('HEXISTS', q.progress, id), redis.call('SISMEMBER', q.lingering, id),
    ties and (ties.g and 'g' or 't') or '', in_group(q, id, ties), in_set(key_of(q, 'parked'), id),
    redis.call('HEXISTS', key_of(q, 'waiting'), id), redis.call('HEXISTS', key_of(q, 'kept'), id),
    redis.call('HEXISTS', q.meta, 'aged'),
  }
end
