#!lua flags=allow-oom
-- admin_scan: a slice of a queue's records: ids and state bytes. Changes nothing.
-- keys: jobs
-- ARGV[1] layout  [2] cursor
-- returns {next cursor, ids, states as one string}
-- include: record
local q = queue_at(1)
local slice = redis.call('HSCAN', q.jobs, ARGV[2], 'COUNT', 500)
local ids, states = {}, {}
for i = 1, #slice[2], 2 do
  ids[#ids + 1] = slice[2][i]
  states[#states + 1] = string.char(string.byte(slice[2][i + 1], 3) or 0)
end
return {slice[1], ids, table.concat(states)}
