#!lua flags=allow-oom
-- admin_purge: delete jobs of one place: the first ones of a list, or those named of a sorted set.
-- keys: jobs ready priority delayed suspects crashes done dead meta stats watched cancels progress lingering ties
-- ARGV[1] layout  [2] place  [3] most jobs (a list), or 0 and then ids [4..] (a sorted set)
-- returns {entries taken out, jobs deleted}
-- include: record
-- include: ties
-- include: place
-- include: ending
-- include: kept
-- include: edges
-- include: index
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local place, most = ARGV[2], tonumber(ARGV[3])
local ids = {}
if most > 0 then
  ids = redis.call('LPOP', q[place], most) or {}
else
  for i = 4, #ARGV do
    local ties = (place == 'parked' or place == 'group' or place == 'waiting') and ties_of(q, ARGV[i])
    local found = ties and take_out(q, ARGV[i], ties) or q[place] and redis.call('ZREM', q[place], ARGV[i]) or 0
    if found > 0 then ids[#ids + 1] = ARGV[i] end
  end
end
if #ids == 0 then return {0, 0} end
if place == 'ready' then redis.call('SREM', q.lingering, unpack(ids)) end
-- An entry of a cancelled job may linger where live ones wait: its record belongs to `done`.
local ends_here = place == 'done' or place == 'dead'
local records, gone, records_of = redis.call('HMGET', q.jobs, unpack(ids)), {}, {}
for i = 1, #ids do
  if records[i] and (state_of(records[i]) ~= LIVE) == ends_here then gone[#gone + 1], records_of[ids[i]] = ids[i], records[i] end
end
if #gone == 0 then return {#ids, 0} end
redis.call('HDEL', q.jobs, unpack(gone))
redis.call('HDEL', q.crashes, unpack(gone))
forget_kept(q, gone)
if is_indexed(q) then index_drop(q, gone) end
for i = 1, place == 'dead' and #gone or 0 do redis.call('DEL', key_of(q, 'saved:' .. gone[i])) end
redis.call('HINCRBY', q.stats, ends_here and 'forgotten' or 'deleted', #gone)
local tokens = redis.call('HMGET', q.watched, unpack(gone))
for i = 1, #gone do
  if tokens[i] then tell(q, gone[i], tokens[i], '') end
  local ties = ties_of(q, gone[i])
  if ties then
    untie(q, gone[i], ties, with_state(records_of[gone[i]], CANCELLED))
    redis.call('DEL', key_of(q, 'inputs:' .. gone[i]), key_of(q, 'expects:' .. gone[i]))
  end
end
follow(q)
return {#ids, #gone}
