#!lua
-- fire: store the jobs of a schedule's ticks and move it to its next one; both or neither.
-- keys: jobs ready priority delayed meta wake stats lingering schedules schedule_specs schedule_leases
-- ARGV[1] layout  [2] name  [3] sha1 of the entry that was read  [4] the tick it stands at, '' to run it now
--   [5] 1: only while code declares it  [6] count of jobs that must have ended, then their ids
--   then the new entry, when it must be looked at ('' for never), and the jobs, each: id, record, due ms, front (0/1)
-- returns done | changed | early | lapsed, or the ids of jobs that have not ended (nothing is written then)
-- include: record
-- include: place
-- include: schedule
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
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

write_entry(q, name, new, look_at)
local count = 0
for at = first_job, #ARGV, 4 do
  local id, record, due = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  -- A tick's job that is there already: the schedule's own place was lost, not the job.
  if redis.call('HEXISTS', q.jobs, id) == 0 then
    if redis.call('SREM', q.lingering, id) == 1 then redis.call('LREM', q.ready, 0, id) end
    redis.call('HSET', q.jobs, id, record)
    if due > now_ms then
      redis.call('ZADD', q.delayed, due, id)
    elseif ARGV[at + 3] == '1' then
      put_front(q, {id}, {record})
    else
      put_back(q, {id}, {record})
    end
    count = count + 1
  end
end
if count > 0 then
  redis.call('HINCRBY', q.stats, 'enqueued', count)
  ring(q)
end
return 'done'
