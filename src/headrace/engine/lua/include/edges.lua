-- Edges of flows. A job that waits for others has its count of missing inputs in `waiting`, and what has come in inputs:ID, by number:
-- each the ended record of the job that sent it. An input comes once, however often it is sent, so no edge is lost or doubled.
-- What was added while the flow ran sends its own id as the number; expects:ID tells how many inputs each such part sends (expect.lua).
-- An edge is {c child (or the prefix of many), k how many, q its queue ('' here), n input number, w when: s succeeded, f failed, d either, a any, r the child reads the record}.
local MOST_ARRIVALS = 128 -- in one script; the rest goes through the outbox, as all does that is for other queues

-- Whether somebody reads what this job ended with.
local function has_reader(ties)
  for _, edge in ipairs(ties.e or {}) do
    if edge.r then return true end
  end
end

local function is_met(when, state)
  local has_failed = state == FAILED or state == EXPIRED
  return when == 'a' or (when ~= 'f' and state == 6) or (when ~= 's' and has_failed)
end

-- A job has all its inputs: it goes where it would have gone at first.
local function let_start(q, id, record, ties)
  redis.call('HDEL', key_of(q, 'waiting'), id)
  if ties.x then redis.call('ZREM', key_of(q, 'timeouts'), id) end
  if ties.d then
    redis.call('ZADD', key_of(q, 'delayed'), now() + ties.d, id)
  elseif ties.g or priority_of(record) ~= 0 or is_ageing(q) then
    put_back(q, {id}, {record})
  else
    redis.call('RPUSH', q.ready, id)
  end
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

-- One input comes. Returns the child's new record when this ended it instead.
local function arrive(q, id, n, when, state, record, parent, wants)
  local missing = redis.call('HGET', key_of(q, 'waiting'), id)
  if not missing then
    if is_met(when, state) then keep_late(q, id, n, wants and record or '') end
    return
  end
  if is_met(when, state) then
    if redis.call('HSETNX', key_of(q, 'inputs:' .. id), n, wants and record or '') == 0 then return end
    if missing ~= '1' and redis.call('HINCRBY', key_of(q, 'waiting'), id, -1) > 0 then return end
  end
  local child = redis.call('HGET', q.jobs, id)
  if not child or state_of(child) ~= LIVE then return end
  if not is_met(when, state) then
    local why = when == 'f' and 'has not failed' or state == FAILED and 'failed' or state == EXPIRED and 'expired' or 'was cancelled'
    return with_reason(with_state(child, CANCELLED), 'job ' .. parent .. ', which it waited for, ' .. why)
  end
  let_start(q, id, child, ties_of(q, id))
end

-- Follow the edges of all jobs that have ended in this script; `q` is their queue.
local function follow(q)
  local budget = MOST_ARRIVALS
  while #ended_jobs > 0 do
    local id, ties, record = unpack(table.remove(ended_jobs))
    for _, edge in ipairs(ties.e or {}) do
      local count = edge.k or 1
      if edge.q ~= '' or count > budget then
        redis.call('RPUSH', key_of(q, 'outbox'), letter(edge, id, record))
      else
        budget = budget - count
        for i = 0, count - 1 do
          local child = edge.k and edge.c .. string.format('%d', i) or edge.c
          local ended = arrive(q, child, edge.n, edge.w, state_of(record), record, id, edge.r)
          if ended then finish(q, child, ended, key_of(q, 'done'), now() + DAY_MS, 'cancelled') end
        end
      end
    end
  end
end
