#!lua flags=allow-oom
-- bulk_put: note how far an action on many jobs has got: more jobs to act on, or fewer.
-- KEYS[1] hash of the action  KEYS[2] list of the jobs it has still to do
-- ARGV[1] layout  [2] the step it was read at, '' for a new one  [3] ms to keep it  [4] jobs to drop from the head
--   [5] count of field, value words, then those; then jobs to add
-- returns 1, or 0: another step came between, and nothing was written
if (redis.call('HGET', KEYS[1], 'step') or '') ~= ARGV[2] then return 0 end
local words = tonumber(ARGV[5])
redis.call('HSET', KEYS[1], unpack(ARGV, 6, 5 + words))
redis.call('HINCRBY', KEYS[1], 'step', 1)
if ARGV[4] ~= '0' then redis.call('LTRIM', KEYS[2], ARGV[4], -1) end
if #ARGV > 5 + words then redis.call('RPUSH', KEYS[2], unpack(ARGV, 6 + words)) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
