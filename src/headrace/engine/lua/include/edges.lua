-- Edges of flows. A job that waits for others has its count of missing inputs in `waiting`, and what has come in inputs:ID, by number:
-- each the ended record of the job that sent it. An input comes once, however often it is sent, so no edge is lost or doubled.
-- What was added while the flow ran sends its own id as the number; expects:ID tells how many inputs each such part sends (expect.lua).
-- An edge is {c child (or the prefix of many), k how many, q its queue ('' here), n input number, w when: s succeeded, f failed, d either, a any, r the child reads the record}.
local MOST_ARRIVALS = 512 -- in one script; the rest goes through the outbox, as all does that is for other queues

local function is_met(when, state)
  local has_failed = state == FAILED or state == EXPIRED
  return when == 'a' or (when ~= 'f' and state == 6) or (when ~= 's' and has_failed)
end

-- Jobs that have all their inputs: each goes where it would have gone at first.
local function let_start(q, ids)
  if #ids == 0 then return end
  redis.call('HDEL', key_of(q, 'waiting'), unpack(ids))
  local records, ties = redis.call('HMGET', q.jobs, unpack(ids)), all_ties(q, ids) or {}
  local tail, others, their_records = {}, {}, {}
  for i = 1, #ids do
    local id, record, tie = ids[i], records[i], ties[i] or {}
    if record and state_of(record) == LIVE then
      if tie.x then redis.call('ZREM', key_of(q, 'timeouts'), id) end
      if tie.d then
        redis.call('ZADD', key_of(q, 'delayed'), now() + tie.d, id)
      elseif tie.g or priority_of(record) ~= 0 or is_ageing(q) then
        others[#others + 1], their_records[#others + 1] = id, record
      else
        tail[#tail + 1] = id
      end
    end
  end
  if #tail > 0 then redis.call('RPUSH', q.ready, unpack(tail)) end
  put_back(q, others, their_records)
  if not q.rang then redis.call('ZADD', key_of(q, 'wake'), 0, '1') end
  q.rang = true
end

-- What an outbox holds: a msgpack array behind its length, then the record (which may hold bytes that no text has).
local function letter(edge, id, record)
  local head = cmsgpack.pack({edge.q, edge.c, edge.k or 0, edge.n, edge.w, state_of(record), id, edge.r and 1 or 0})
  return struct.pack('>I4', #head) .. head .. record
end

-- An input for a job that has ended: kept beside the others for as long as they are, in case the job is put back.
local function keep_late(q, id, n, input)
  local child = redis.call('HGET', q.jobs, id)
  if not child or state_of(child) == LIVE or state_of(child) == 6 then return end
  if redis.call('HSETNX', key_of(q, 'inputs:' .. id), n, input) == 1 then
    redis.call('PEXPIRE', key_of(q, 'inputs:' .. id), state_of(child) == FAILED and 30 * DAY_MS or DAY_MS)
  end
end

-- A job that waits for what can no longer come ends.
local function end_never(q, id, when, state, parent)
  local record = redis.call('HGET', q.jobs, id)
  if not record or state_of(record) ~= LIVE then return end
  local why = when == 'f' and 'has not failed' or state == FAILED and 'failed' or state == EXPIRED and 'expired' or 'was cancelled'
  local ended = with_reason(with_state(record, CANCELLED), 'job ' .. parent .. ', which it waited for, ' .. why)
  finish(q, id, ended, key_of(q, 'done'), now() + DAY_MS, 'cancelled')
end

-- Inputs come, each {child, number, when, state, record, parent, whether the child reads the record}: those of a child are noted, counted
-- and compared at once. A child that can never run ends.
local function arrive(q, inputs)
  if #inputs == 0 then return end
  local children, of = {}, {}
  for _, input in ipairs(inputs) do
    local child = input[1]
    if not of[child] then
      children[#children + 1], of[child] = child, {}
    end
    table.insert(of[child], input)
  end
  local missing, starts, counts = redis.call('HMGET', key_of(q, 'waiting'), unpack(children)), {}, {}

  -- Which of these have come before, by number.
  local function known(child, some)
    if #some == 1 then return {} end
    local numbers, found = {}, {}
    for i, input in ipairs(some) do numbers[i] = input[2] end
    for i, value in ipairs(redis.call('HMGET', key_of(q, 'inputs:' .. child), unpack(numbers))) do found[numbers[i]] = value and true end
    return found
  end

  for i, child in ipairs(children) do
    local some, left, never, values = of[child], tonumber(missing[i]), nil, {}
    local is_there = left and known(child, some)
    for _, input in ipairs(some) do
      local _, n, when, state, record, parent, wants = unpack(input, 1, 7)
      local what = wants and record or ''
      if not left then
        if is_met(when, state) then keep_late(q, child, n, what) end
      elseif not is_met(when, state) then
        left, never = nil, {when, state, parent}
      elseif #some == 1 then
        left = left - redis.call('HSETNX', key_of(q, 'inputs:' .. child), n, what)
      elseif not is_there[n] then
        left, is_there[n] = left - 1, true
        values[#values + 1], values[#values + 2] = n, what
      end
      if left == 0 then left, starts[#starts + 1] = nil, child end
    end
    if #values > 0 then redis.call('HSET', key_of(q, 'inputs:' .. child), unpack(values)) end
    if left and left ~= tonumber(missing[i]) then counts[#counts + 1], counts[#counts + 2] = child, left end
    if never then end_never(q, child, unpack(never)) end
  end
  if #counts > 0 then redis.call('HSET', key_of(q, 'waiting'), unpack(counts)) end
  let_start(q, starts)
end

-- Follow the edges of all jobs that have ended in this script; `q` is their queue.
local function follow(q)
  local budget = MOST_ARRIVALS
  while #ended_jobs > 0 do
    local ended, inputs = ended_jobs, {}
    ended_jobs = {}
    for _, job in ipairs(ended) do
      local id, ties, record = unpack(job)
      for _, edge in ipairs(ties.e or {}) do
        local count = edge.k or 1
        if edge.q ~= '' or count > budget then
          redis.call('RPUSH', key_of(q, 'outbox'), letter(edge, id, record))
        else
          budget = budget - count
          for i = 0, count - 1 do
            local child = edge.k and edge.c .. string.format('%d', i) or edge.c
            inputs[#inputs + 1] = {child, edge.n, edge.w, state_of(record), record, id, edge.r}
          end
        end
      end
    end
    arrive(q, inputs)
  end
end
