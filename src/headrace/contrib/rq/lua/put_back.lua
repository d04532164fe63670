-- put_back: jobs that could not be moved, or that come back: where they were in RQ, those of a queue at its head.
-- KEYS[1] lock  [2] taken, or moved
-- ARGV[1] token  [2] lock ms  [3] RQ's prefix  [4] now, Unix ms  [5] forget: their notes; mark: note that they are back  [6..] ids, the first to be next
-- returns how many; or the error LOST
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('LOST another run has taken over') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local prefix, count = ARGV[3], 0
for i = #ARGV, 6, -1 do
  local id = ARGV[i]
  local told = redis.call('HGET', KEYS[2], id)
  local key = prefix .. ':job:' .. id
  local was = told and cjson.decode(told)
  if was and not was.is_back and redis.call('EXISTS', key) == 1 then
    local queue = prefix .. ':queue:' .. was.queue
    local ends_ms = tonumber(was.ends_ms)
    redis.call('PERSIST', key)
    redis.call('PERSIST', prefix .. ':job::' .. id .. ':dependencies')
    if ends_ms > 0 then redis.call('PEXPIRE', key, math.max(ends_ms - tonumber(ARGV[4]), 1)) end
    if was.place == 'scheduled' or was.place == 'failed' or was.place == 'ready' or was.place == 'deferred' then
      redis.call('ZADD', prefix .. ':' .. was.place .. ':' .. was.queue, was.score, id)
      for parent in string.gmatch(was.parents, '%S+') do redis.call('SADD', prefix .. ':job:' .. parent .. ':dependents', id) end
    elseif was.place == 'rate_limited' then
      redis.call('ZADD', prefix .. ':rl:' .. was.queue .. ':rate_limited', was.score, id)
    else
      redis.call('HSET', key, 'status', 'queued')
      redis.call('LPUSH', queue, id)
    end
    if was.place ~= 'rate_limited' then redis.call('SADD', prefix .. ':queues', queue) end
    count = count + 1
    was.is_back = true
    if ARGV[5] == 'mark' then redis.call('HSET', KEYS[2], id, cjson.encode(was)) end
  end
  if ARGV[5] == 'forget' then redis.call('HDEL', KEYS[2], id) end
end
return count
