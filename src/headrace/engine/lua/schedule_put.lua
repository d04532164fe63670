#!lua flags=allow-oom
-- schedule_put: write a schedule's entry, if it is still the one that was read.
-- keys: meta schedules schedule_specs schedule_leases
-- ARGV[1] layout  [2] name  [3] sha1 of the entry that was read, '' for none  [4] the new one, '' to remove it
--   [5] when it must be looked at, '' for never  [6] ms for which its declaration holds, 0 for as it was
-- returns done | changed
-- include: record
-- include: schedule
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local name, new, lease_ms = ARGV[2], ARGV[4], tonumber(ARGV[6])
local may = may_write(q, name, ARGV[3], new)
if may ~= true then return may end
redis.call('HSETNX', q.meta, 'layout', ARGV[1])
write_entry(q, name, new, ARGV[5])
if lease_ms > 0 then redis.call('ZADD', q.schedule_leases, now() + lease_ms, digest_in(new) .. ' ' .. name) end
return 'done'
