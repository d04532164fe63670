#!lua flags=allow-oom
-- admin_page: a slice of one place of a queue, with the records. Changes nothing.
-- keys: jobs ready priority delayed suspects done dead
-- ARGV[1] layout  [2] place  [3] first index, or the number of a group  [4] most jobs (of a group: its first 256)
-- returns {ids (false: there is no such group), scores (those of a list are ''), records (false: there is none)}
-- include: record
local q = queue_at(1)
local place, first, last = ARGV[2], tonumber(ARGV[3]), ARGV[3] + ARGV[4] - 1
local ids, scores = {}, {}
if place == 'group' then -- the jobs of one group: `first` is the number of the group
  local group = redis.call('ZRANGE', string.sub(q.jobs, 1, -5) .. 'groups', first, first)[1]
  if not group then return {false, scores, {}} end
  if group ~= '' then ids = redis.call('LRANGE', string.sub(q.jobs, 1, -5) .. 'group:' .. group, 0, 255) end
elseif place == 'parked' then
  ids = redis.call('ZRANGE', string.sub(q.jobs, 1, -5) .. 'parked', first, last)
  for i = 1, #ids do scores[i] = '' end
elseif place == 'ready' or place == 'suspects' then
  ids = redis.call('LRANGE', q[place], first, last)
  for i = 1, #ids do scores[i] = '' end
else
  local newest_first = place == 'done' or place == 'dead'
  local found = redis.call(newest_first and 'ZREVRANGE' or 'ZRANGE', q[place], first, last, 'WITHSCORES')
  for i = 1, #found, 2 do ids[#ids + 1], scores[#scores + 1] = found[i], found[i + 1] end
end
if #ids == 0 then return {ids, scores, {}} end
return {ids, scores, redis.call('HMGET', q.jobs, unpack(ids))}
