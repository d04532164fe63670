-- take: take jobs out of RQ, so that no worker of RQ's finds them, and note where they were. Their hashes stay.
-- KEYS[1] lock  [2] taken  [3] the list or sorted set
-- ARGV[1] token  [2] lock ms  [3] RQ's prefix  [4] batch  [5] place  [6] queue, or limit, that the place is of
--   [7] headrace's queue  [8] now, Unix ms  [9..] ids
-- returns for each that was there: id, its hash as pairs, ms its hash had left to live (-1: no end), its score ('' for none),
--   whether jobs wait for it (0/1); or the error LOST
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('LOST another run has taken over') end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local prefix, place = ARGV[3], ARGV[5]
local is_list = place == 'queued' or place == 'intermediate'
local found = {}

-- RQ's running jobs are ID in 1.x, ID:EXECUTION in 2.x.
local function take_started(id)
  local gone = redis.call('ZREM', KEYS[3], id)
  for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if string.sub(member, 1, #id + 1) == id .. ':' then gone = gone + redis.call('ZREM', KEYS[3], member) end
  end
  return gone
end

for i = 9, #ARGV do
  local id, score, gone = ARGV[i], '', 0
  local key = prefix .. ':job:' .. id
  local hash = redis.call('HGETALL', key)
  if #hash > 0 and redis.call('HEXISTS', KEYS[2], id) == 0 then
    if is_list then
      gone = redis.call('LREM', KEYS[3], 1, id)
    elseif place == 'started' then
      gone = take_started(id)
    elseif place == 'lost' then
      gone = 1
    else
      score = redis.call('ZSCORE', KEYS[3], id) or ''
      gone = redis.call('ZREM', KEYS[3], id)
    end
  end
  if gone > 0 then
    local parents = {}
    if place == 'deferred' then
      for _, parent in ipairs(redis.call('SMEMBERS', prefix .. ':job::' .. id .. ':dependencies')) do
        if redis.call('SREM', prefix .. ':job:' .. parent .. ':dependents', id) == 1 then parents[#parents + 1] = parent end
      end
    end
    local left_ms = redis.call('PTTL', key)
    redis.call('PERSIST', key) -- or it could end while it is under way
    local ends_ms = left_ms > 0 and tonumber(ARGV[8]) + left_ms or 0
    redis.call('HSET', KEYS[2], id, cjson.encode({
      batch = ARGV[4], place = place, queue = ARGV[6], to = ARGV[7], score = score, ends_ms = string.format('%d', ends_ms), parents = table.concat(parents, ' ')
    }))
    found[#found + 1] = {id, hash, left_ms, score, redis.call('EXISTS', key .. ':dependents')}
  end
end
return found
