#!lua flags=allow-oom
-- index_places: where these live jobs stand. Changes nothing.
-- keys: jobs delayed sessions
-- ARGV[1] layout  [2..] ids
-- returns for each: {due ms or false, waits for a limit or for others (0/1), the session that runs it or ''}
-- include: ties
local q = queue_at(1)
local ids, found = {}, {}
for i = 2, #ARGV do
  ids[i - 1] = ARGV[i]
  local waits = redis.call('ZSCORE', key_of(q, 'parked'), ARGV[i]) or redis.call('HEXISTS', key_of(q, 'waiting'), ARGV[i]) == 1
  found[i - 1] = {redis.call('ZSCORE', q.delayed, ARGV[i]), waits and 1 or 0, ''}
end
for _, session in ipairs(redis.call('ZRANGE', q.sessions, 0, -1)) do
  local flags = redis.call('SMISMEMBER', key_of(q, 'held:' .. session), unpack(ids))
  for i = 1, #ids do
    if flags[i] == 1 then found[i][3] = session end
  end
end
return found
