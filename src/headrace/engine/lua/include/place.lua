-- Where live jobs wait. A priority's score is its level, then arrival; arrival 0 puts a returned job first in its level.
local LEVEL = 17592186044416 -- 2^44 arrivals a level: (100 - priority) * 2^44 + arrival < 2^53
local CHUNK = 1000 -- values a call: Lua's unpack takes fewer than 8,000

-- In a queue that ages, a job rises by one priority with each step it waits. All rise alike, so the order of two never changes: it
-- is enough that arrivals grow by one level a step. In meta: `aged`, how far they had risen, and since when they rise (ms);
-- `ageing`, the step (ms), gone when it was turned off; `arrival`, the last one given. New jobs stand in `priority`, all of them;
-- what is in `ready` stood there before, or was put to the head, and counts as having come when ageing began. ADR 0044.
local function ageing_of(q)
  if q.aged == nil then
    local found = redis.call('HMGET', q.meta, 'aged', 'ageing')
    local base, since = string.match(found[1] or '', '^(%S+) (%S+)$')
    q.aged = base and {base = tonumber(base), since = tonumber(since), step = tonumber(found[2])} or false
  end
  return q.aged
end

local function is_ageing(q)
  local aged = ageing_of(q)
  return aged and aged.step
end

-- The numbers of `count` arrivals: the first, and the gap to the next.
local function arrivals(q, count)
  local aged = ageing_of(q)
  if not aged then return redis.call('HINCRBY', q.meta, 'seq', count) - count + 1, 1 end
  local last = tonumber(redis.call('HGET', q.meta, 'arrival')) or aged.base
  local risen = aged.base + (aged.step and math.max(now() - aged.since, 0) / aged.step * LEVEL or 0)
  -- A score is exact in 53 bits: as it grows, so does what tells two of them apart.
  local _, exponent = math.frexp(math.max(last, risen) + 256 * LEVEL)
  local gap = math.ldexp(1, exponent - 52)
  local first = math.max(math.ceil(risen / gap), math.floor(last / gap) + 1) * gap
  redis.call('HSET', q.meta, 'arrival', string.format('%.17g', first + (count - 1) * gap))
  return first, gap
end

-- Where the first of a priority stands; at 0 that is where `ready` counts.
local function front_of(q, priority)
  local aged = ageing_of(q)
  return (100 - priority) * LEVEL + (aged and aged.base or 0)
end

local function call_in_chunks(command, key, values)
  for first = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
end

local function ring(q) redis.call('ZADD', q.wake, 0, '1') end

-- The first of a job's limits before which others stand.
local function first_queue_of(q, ties)
  if not ties.l or is_calm(q) then return nil end
  for _, limit in ipairs(ties.l or {}) do
    if is_lined_up(q, limit.n) then return limit.n end
  end
end

-- To the head, order kept; of a limit's queue, where others stand there. `records[i]` is that of `ids[i]`; a deleted job (false) is dropped.
local function put_front(q, ids, records)
  local plain, ties = {}, all_ties(q, ids)
  for i = #ids, 1, -1 do
    local priority = records[i] and priority_of(records[i])
    local tie = priority and ties and ties[i]
    local before = tie and first_queue_of(q, tie)
    if before then
      park_at(q, before, ids[i], front_of(q, priority))
      redis.call('ZADD', key_of(q, 'gates'), 0, before)
    elseif tie and tie.g then
      redis.call('LPUSH', key_of(q, 'group:' .. tie.g), ids[i])
      take_part(q, tie.g, tie.w)
    elseif priority == 0 then
      plain[#plain + 1] = ids[i]
    elseif priority then
      redis.call('ZADD', q.priority, front_of(q, priority), ids[i])
    end
  end
  call_in_chunks('LPUSH', q.ready, plain)
end

-- To the tail.
local function put_back(q, ids, records)
  local plain, ties = {}, all_ties(q, ids)
  for i = 1, #ids do
    local priority = records[i] and priority_of(records[i])
    if priority and ties and ties[i] and ties[i].g then
      redis.call('RPUSH', key_of(q, 'group:' .. ties[i].g), ids[i])
      take_part(q, ties[i].g, ties[i].w)
    elseif priority == 0 and not is_ageing(q) then
      plain[#plain + 1] = ids[i]
    elseif priority then
      redis.call('ZADD', q.priority, (100 - priority) * LEVEL + arrivals(q, 1), ids[i])
    end
  end
  call_in_chunks('RPUSH', q.ready, plain)
end

-- Move what is due to its place, at most 256. Returns ms until the next due job, or -1.
local function promote(q, now_ms)
  local first = redis.call('ZRANGE', q.delayed, 0, 0, 'WITHSCORES')
  if #first == 0 then return -1, 0 end
  local wait = tonumber(first[2]) - now_ms
  if wait > 0 then return wait, 0 end
  local ids = redis.call('ZRANGEBYSCORE', q.delayed, '-inf', now_ms, 'LIMIT', 0, 256)
  redis.call('ZREM', q.delayed, unpack(ids))
  put_back(q, ids, redis.call('HMGET', q.jobs, unpack(ids)))
  first = redis.call('ZRANGE', q.delayed, 0, 0, 'WITHSCORES')
  return #first == 0 and -1 or math.max(tonumber(first[2]) - now_ms, 0), #ids
end
