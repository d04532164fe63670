-- finish: jobs that headrace has now: noted as moved. RQ's copy of each is kept for a while, then ends by itself.
-- KEYS[1] lock  [2] taken  [3] moved
-- ARGV[1] token  [2] lock ms  [3] RQ's prefix  [4] ms to keep RQ's copies, 0: not at all  [5..] ids
-- returns how many; or the error LOST
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('LOST another run has taken over') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local keep_ms, count = tonumber(ARGV[4]), 0
for i = 5, #ARGV do
  local id = ARGV[i]
  local was = redis.call('HGET', KEYS[2], id)
  if was then
    count = count + 1
    redis.call('HDEL', KEYS[2], id)
    redis.call('HSET', KEYS[3], id, was)
    local job = ARGV[3] .. ':job:' .. id
    for _, key in ipairs({job, ARGV[3] .. ':job::' .. id .. ':dependencies', ARGV[3] .. ':results:' .. id}) do
      if keep_ms > 0 then redis.call('PEXPIRE', key, keep_ms) else redis.call('DEL', key) end
    end
  end
end
-- What is told of a job's parents must outlast the job's own copy.
redis.call('PEXPIRE', KEYS[3], math.max(keep_ms, 7 * 86400000))
return count
