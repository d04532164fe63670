#!lua flags=allow-oom
-- arrive: an input comes to jobs of this queue, from an outbox or from outside; again does no harm.
-- keys: jobs ready priority delayed meta stats ties wake
-- ARGV[1] layout  [2] child, or the prefix of many  [3] first of many, or ''  [4] how many  [5] input number  [6] when  [7] state  [8] parent
--   [9] its ended record, '' when the child does not read it
-- returns 1 when jobs wait in this queue's own outbox now
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: edges
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
q.watched, q.progress, q.cancels = key_of(q, 'watched'), key_of(q, 'progress'), key_of(q, 'cancels')
q.suspects, q.done, q.crashes = key_of(q, 'suspects'), key_of(q, 'done'), key_of(q, 'crashes')
local inputs = {}
for i = 0, tonumber(ARGV[4]) - 1 do
  local child = ARGV[3] == '' and ARGV[2] or ARGV[2] .. string.format('%d', ARGV[3] + i)
  inputs[i + 1] = {child, ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[9], ARGV[8], true}
end
arrive(q, inputs)
follow(q)
return redis.call('EXISTS', key_of(q, 'outbox'))
