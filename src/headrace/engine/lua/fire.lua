#!lua
-- fire: store the jobs of a schedule's ticks and move it to its next one; both or neither.
-- keys: jobs ready priority delayed done dead meta wake stats lingering ties schedules schedule_specs schedule_leases
-- ARGV[1] layout  [2] name  [3] sha1 of the entry that was read  [4] the tick it stands at, '' to run it now
--   [5] 1: only while code declares it  [6] count of jobs that must have ended, then their ids
--   then the new entry, when it must be looked at ('' for never), and the jobs, each: id, record, due ms, front (0/1), ties
--   (see include/ties.lua). A job whose unique key is taken is not made.
-- returns done | changed | early | lapsed, or the ids of jobs that have not ended (nothing is written then)
-- include: record
-- include: ties
-- include: place
-- include: unique
-- include: index
-- include: schedule
local q = queue_at(1)
local EACH = 5
local found = redis.call('HMGET', q.meta, 'layout', 'max_length', 'overflow', 'indexed')
local wrong = layout_error(found[1])
if wrong then return wrong end
local name, tick, guards = ARGV[2], ARGV[4], tonumber(ARGV[6])
local new, look_at, first_job = ARGV[7 + guards], ARGV[8 + guards], 9 + guards
local may = may_write(q, name, ARGV[3], new)
if may ~= true then return may end
local now_ms = now()
if tick ~= '' then
  if tonumber(redis.call('ZSCORE', q.schedules, name) or '') ~= tonumber(tick) then return 'changed' end
  if now_ms < tonumber(tick) then return 'early' end
end
if ARGV[5] == '1' then
  local entry = redis.call('HGET', q.schedule_specs, name)
  local ends = redis.call('ZSCORE', q.schedule_leases, digest_in(entry) .. ' ' .. name)
  if not ends or tonumber(ends) <= now_ms then return 'lapsed' end
end
local live = {}
for i = 7, 6 + guards do
  local record = redis.call('HGET', q.jobs, ARGV[i])
  if record and state_of(record) == LIVE then live[#live + 1] = ARGV[i] end
end
if #live > 0 then return live end
-- A queue of a limited length refuses; where the oldest would be dropped, the next enqueue does that.
local jobs = (#ARGV - first_job + 1) / EACH
if found[2] and found[3] ~= 'drop_oldest' and jobs > 0 then
  local waiting = redis.call('HLEN', q.jobs) - redis.call('ZCARD', q.done) - redis.call('ZCARD', q.dead)
  if waiting + jobs > tonumber(found[2]) then return redis.error_reply('QUEUEFULL ' .. string.format('%d %d', waiting, found[2])) end
end

-- A tick's job may be there already: where the schedule's own place was lost, not the job.
local function make(id, record, due, is_front, packed)
  if redis.call('HEXISTS', q.jobs, id) == 1 then return 0 end
  local ties = packed ~= '' and cmsgpack.unpack(packed)
  if ties and ties.u and owner_of(q, ties.u, now_ms) then return 0 end
  if redis.call('SREM', q.lingering, id) == 1 then redis.call('LREM', q.ready, 0, id) end
  redis.call('HSET', q.jobs, id, record)
  if found[4] then index_put(q, {id}, {record}) end
  if ties then
    redis.call('HSET', q.ties, id, packed)
    weigh(q, ties)
  end
  if ties and ties.u then bind(q, id, ties, now_ms) end
  if due > now_ms then
    redis.call('ZADD', q.delayed, due, id)
  elseif is_front then
    put_front(q, {id}, {record})
  else
    put_back(q, {id}, {record})
  end
  return 1
end

write_entry(q, name, new, look_at)
local made = 0
for at = first_job, #ARGV, EACH do
  made = made + make(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3] == '1', ARGV[at + 4])
end
if made > 0 then
  redis.call('HINCRBY', q.stats, 'enqueued', made)
  ring(q)
end
return 'done'
