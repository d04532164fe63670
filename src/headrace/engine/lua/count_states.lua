#!lua flags=allow-oom
-- count_states: in which states these jobs are, counted, so that no record leaves the server. At most 1,000 jobs a call. Changes nothing.
-- keys: jobs delayed sessions
-- ARGV[1] layout  [2..] threes: the id of a job, its number '' and count 0; or a prefix, the first number behind it, and how many
-- returns for each three {ten counts: gone, waiting, scheduled, retrying, queued, running, succeeded, failed, cancelled, expired; the record of the first that failed, or ''}
-- include: record
-- include: ties
local q = queue_at(1)
local GONE, WAITING, SCHEDULED, RETRYING, QUEUED, RUNNING = 1, 2, 3, 4, 5, 6
local ENDED = {[6] = 7, [7] = 8, [8] = 9, [9] = 10}
local ATTEMPT = 9 -- its place in a record
local waiting, parked = key_of(q, 'waiting'), key_of(q, 'parked')
local sessions = redis.call('ZRANGE', q.sessions, 0, -1)

local function ids_of(name, first, count)
  if count == 0 then return {name} end
  local ids = {}
  for n = 0, count - 1 do ids[n + 1] = name .. string.format('%.0f', first + n) end
  return ids
end

local function is_held(id)
  for _, session in ipairs(sessions) do
    if redis.call('SISMEMBER', key_of(q, 'held:' .. session), id) == 1 then return true end
  end
  return false
end

local function place_of(id, record)
  if redis.call('ZSCORE', q.delayed, id) then return (cmsgpack.unpack(record)[ATTEMPT] or 0) > 0 and RETRYING or SCHEDULED end
  if redis.call('HEXISTS', waiting, id) == 1 or redis.call('ZSCORE', parked, id) then return WAITING end
  return is_held(id) and RUNNING or QUEUED
end

local reply = {}
for at = 2, #ARGV, 3 do
  local ids = ids_of(ARGV[at], tonumber(ARGV[at + 1]) or 0, tonumber(ARGV[at + 2]))
  local found, counts, failed = redis.call('HMGET', q.jobs, unpack(ids)), {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ''
  for i, id in ipairs(ids) do
    local record = found[i]
    local state = GONE
    if record then state = ENDED[state_of(record)] or place_of(id, record) end
    counts[state] = counts[state] + 1
    if failed == '' and state == ENDED[FAILED] then failed = record end
  end
  counts[11] = failed
  reply[#reply + 1] = counts
end
return reply
