#!lua flags=allow-oom
-- expect: jobs that wait for others wait for so many inputs more, of a part that is being added; or no longer do. Again does no harm.
-- keys: jobs ready priority delayed meta wake ties
-- ARGV[1] layout  [2] job, or the prefix of many  [3] first of many, or ''  [4] how many  [5] part id  [6] inputs of it, 0: none any more
-- returns 1, or the id of one that does not wait (then nothing is written)
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: edges
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local waiting, inputs = key_of(q, 'waiting'), tonumber(ARGV[6])
local ids = {}
for i = 0, tonumber(ARGV[4]) - 1 do ids[i + 1] = ARGV[3] == '' and ARGV[2] or ARGV[2] .. string.format('%d', ARGV[3] + i) end
for _, id in ipairs(ids) do
  if inputs > 0 and redis.call('HEXISTS', waiting, id) == 0 then return id end
end
for _, id in ipairs(ids) do
  local expects = key_of(q, 'expects:' .. id)
  if inputs > 0 then
    if redis.call('HSETNX', expects, ARGV[5], inputs) == 1 then redis.call('HINCRBY', waiting, id, inputs) end
  else
    local before = redis.call('HGET', expects, ARGV[5])
    redis.call('HDEL', expects, ARGV[5])
    if before and redis.call('HEXISTS', waiting, id) == 1 and redis.call('HINCRBY', waiting, id, -before) <= 0 then
      let_start(q, {id})
    end
  end
end
return 1
