#!lua flags=allow-oom
-- tend: promote due jobs, end pauses whose time is over, take over sessions whose lease has ended, trim what is kept no longer. Bounded; run by every supervisor.
-- keys: jobs ready priority delayed sessions suspects crashes done dead meta producers wake stats watched cancels progress ties schedules
-- ARGV[1] layout  [2] sweep while the clock says no more than these ms (0: never)  [3] most succeeded jobs kept  [4] most failed jobs kept
-- returns {server ms, promoted, sessions swept, ids swept, trimmed, ids failed, sessions that overran their lease,
--   when a schedule's next tick is, or -1, outbox has something (0/1), flows or links may be half done (0/1)}
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: kept
-- include: edges
-- include: index
-- include: release
local q = queue_at(1)
local meta = redis.call('HMGET', q.meta, 'layout', 'longest_lease', 'paused_until', 'indexed')
local wrong = layout_error(meta[1])
if wrong then return wrong end
local now_ms = now()
if meta[3] and tonumber(meta[3]) <= now_ms then
  redis.call('HDEL', q.meta, 'paused', 'paused_at', 'paused_until')
  ring(q)
end
local next_due, promoted = promote(q, now_ms)
local swept, jobs, failed = {}, {}, {}
local overdue = redis.call('ZRANGEBYSCORE', q.sessions, '-inf', now_ms, 'LIMIT', 0, 16)

local function sweep(session)
  local held = base_of(q) .. 'held:' .. session
  local ids = redis.call('SMEMBERS', held)
  table.sort(ids)
  loosen_all(q, ids, false)
  for i = 1, #ids do
    local record = redis.call('HGET', q.jobs, ids[i])
    if record and state_of(record) == LIVE then
      -- A suspect that was held alone took its machine with it, or its connection: that counts.
      local charge = #ids == 1 and redis.call('HEXISTS', q.crashes, ids[i]) == 1
      if suspect(q, ids[i], record, charge, 'worker lost: its lease ended', now_ms) == 'failed' then
        failed[#failed + 1] = ids[i]
      end
      jobs[#jobs + 1] = ids[i]
    end
  end
  redis.call('DEL', held)
  redis.call('ZREM', q.sessions, session)
  swept[#swept + 1] = session
end

-- No lease ends later than the longest that was asked for, but where the clock was put back: a dead session must not outlive that.
if meta[2] then
  local latest = string.format('%.0f', now_ms + meta[2])
  local late = redis.call('ZRANGEBYSCORE', q.sessions, '(' .. latest, '+inf', 'LIMIT', 0, 16)
  for i = 1, #late do redis.call('ZADD', q.sessions, latest, late[i]) end
end

-- The caller may have judged by a clock that has jumped since, or this call has lain in a server that stood still.
if now_ms <= tonumber(ARGV[2]) then
  for i = 1, #overdue do sweep(overdue[i]) end
end

-- Delete records whose time is up, or that are more than may be kept: ended ones only.
local function trim(place, most)
  local ids = redis.call('ZRANGEBYSCORE', place, '-inf', now_ms, 'LIMIT', 0, 256)
  local excess = redis.call('ZCARD', place) - tonumber(most)
  if #ids == 0 and excess > 0 then ids = redis.call('ZRANGE', place, 0, math.min(excess, 256) - 1) end
  if #ids == 0 then return 0 end
  redis.call('ZREM', place, unpack(ids))
  local records, gone = redis.call('HMGET', q.jobs, unpack(ids)), {}
  for i = 1, #ids do
    if records[i] and state_of(records[i]) ~= LIVE then
      gone[#gone + 1] = ids[i]
      if state_of(records[i]) == FAILED then redis.call('DEL', key_of(q, 'saved:' .. ids[i])) end
    end
  end
  if #gone > 0 then redis.call('HDEL', q.jobs, unpack(gone)) end
  if meta[4] then index_drop(q, gone) end
  forget_kept(q, gone)
  return #ids
end

local trimmed = trim(q.done, ARGV[3]) + trim(q.dead, ARGV[4])

-- Producers that have been silent for a day; a slice of the hash a call.
local slice = redis.call('HSCAN', q.producers, redis.call('HGET', q.meta, 'trim_at') or '0', 'COUNT', 50)
for i = 1, #slice[2], 2 do
  if tonumber(string.match(slice[2][i + 1], '^%d+ (%d+)')) < (now_ms - DAY_MS) / 1000 then
    redis.call('HDEL', q.producers, slice[2][i])
  end
end
if slice[1] ~= '0' then redis.call('HSET', q.meta, 'trim_at', slice[1])
else redis.call('HDEL', q.meta, 'trim_at') end

-- What is kept for ties and says nothing any more. Bounded, as above.
local function trim_ties()
  local throttled, rates, groups = key_of(q, 'throttled'), key_of(q, 'rates'), key_of(q, 'groups')
  if redis.call('EXISTS', throttled, rates, groups, key_of(q, 'holds')) == 0 then return end
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', throttled, '-inf', now_ms, 'LIMIT', 0, 256)) do
    redis.call('ZREM', throttled, key)
    redis.call('HDEL', key_of(q, 'unique'), key)
  end
  redis.call('ZREMRANGEBYSCORE', key_of(q, 'holds'), '-inf', now_ms)
  local some = redis.call('HSCAN', rates, redis.call('HGET', q.meta, 'trim_rates_at') or '0', 'COUNT', 50)
  for i = 1, #some[2], 2 do
    if tonumber(some[2][i + 1]) < now_ms then redis.call('HDEL', rates, some[2][i]) end
  end
  if some[1] ~= '0' then redis.call('HSET', q.meta, 'trim_rates_at', some[1])
  else redis.call('HDEL', q.meta, 'trim_rates_at') end
  if redis.call('EXISTS', q.ties) == 0 then redis.call('DEL', groups, key_of(q, 'weights')) end
end
trim_ties()
if redis.call('EXISTS', q.ties) == 0 then redis.call('HDEL', q.meta, 'weighs') end

-- Jobs that have waited long enough for what would come from outside.
local function end_waiting()
  local timeouts = key_of(q, 'timeouts')
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', timeouts, '-inf', now_ms, 'LIMIT', 0, 64)) do
    redis.call('ZREM', timeouts, id)
    local record = redis.call('HGET', q.jobs, id)
    if record and state_of(record) == LIVE and redis.call('HDEL', key_of(q, 'waiting'), id) == 1 then
      local ended = with_reason(with_state(record, FAILED), 'nothing came in time')
      finish(q, id, ended, q.dead, now_ms + 30 * DAY_MS, 'failed')
      if meta[4] then index_again(q, {id}, {ended}) end
    end
  end
end
if redis.call('EXISTS', key_of(q, 'waiting')) == 1 then end_waiting() end
follow(q)

if promoted > 0 or #jobs > 0 then ring(q) end
local tick = redis.call('ZRANGE', q.schedules, 0, 0, 'WITHSCORES')
return {
  now_ms, promoted, swept, jobs, trimmed, failed, overdue, tonumber(tick[2] or -1), redis.call('EXISTS', key_of(q, 'outbox')),
  redis.call('EXISTS', key_of(q, 'linking'), key_of(q, 'incomplete')),
}
