#!lua flags=allow-oom
-- admin_scan: a slice of a queue's records: ids, and of each the state and the priority. Changes nothing.
-- keys: jobs
-- ARGV[1] layout  [2] cursor
-- returns {next cursor, ids, marks of two characters}
-- include: record
-- include: ties
-- include: ending
-- include: seat
local q = queue_at(1)
local slice = redis.call('HSCAN', q.jobs, ARGV[2], 'COUNT', 500)
local ids, marks = {}, {}
for i = 1, #slice[2], 2 do ids[#ids + 1], marks[#marks + 1] = slice[2][i], mark_of(slice[2][i + 1]) end
return {slice[1], ids, marks}
