#!lua flags=allow-oom
-- release: end a session whose process is dead or done; the blamed become suspects, the rest go back uncharged.
-- keys: jobs ready priority sessions suspects crashes done dead meta wake stats watched cancels progress ties held
-- ARGV[1] layout  [2] session  [3] alone (0/1: the blamed ran by itself, so the death counts)
--   [4] stopped (0/1: the blamed were killed over their timeout; who claims them next reads why, and decides)
--   [5] reason  [6..] blamed ids
-- returns {blamed ids now suspects, how many went back, ids failed}
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: edges
-- include: index
-- include: release
local q = queue_at(1)
local now_ms = now()
local ids = redis.call('SMEMBERS', q.held)
table.sort(ids)
local is_blamed = {}
for i = 6, #ARGV do is_blamed[ARGV[i]] = true end
local suspects, failed, back, back_records = {}, {}, {}, {}
loosen_all(q, ids, false)
for i = 1, #ids do
  local id = ids[i]
  local record = redis.call('HGET', q.jobs, id)
  if record and state_of(record) == LIVE then
    if is_blamed[id] and ARGV[4] == '1' and not is_cancel_asked(q, id) then
      record = with_reason(record, ARGV[5])
      redis.call('HSET', q.jobs, id, record)
      redis.call('HDEL', q.crashes, id)
      back[#back + 1], back_records[#back_records + 1] = id, record
    elseif is_blamed[id] then
      local became = suspect(q, id, record, ARGV[3] == '1', ARGV[5], now_ms)
      if became == 'suspect' then suspects[#suspects + 1] = id end
      if became == 'failed' then failed[#failed + 1] = id end
    elseif is_cancel_asked(q, id) then
      redis.call('HDEL', q.crashes, id)
      finish(q, id, with_state(record, CANCELLED), q.done, now_ms + DAY_MS, 'cancelled')
    elseif redis.call('HEXISTS', q.crashes, id) == 1 then
      redis.call('LPUSH', q.suspects, id)
      back[#back + 1], back_records[#back_records + 1] = id, false
    else
      back[#back + 1], back_records[#back_records + 1] = id, record
    end
  end
end
put_front(q, back, back_records)
follow(q)
redis.call('DEL', q.held)
redis.call('ZREM', q.sessions, ARGV[2])
if #ids > 0 then ring(q) end
return {suspects, #back, failed}
