#!lua flags=allow-oom
-- tally: add what a worker has counted to the queue's minute, hour and day, with what its totals have grown by since. Bounded.
-- keys: meta stats minutes hours days
-- ARGV[1] layout  [2..] threes: how many minutes ago, task, sums (a msgpack map of numbers)
-- returns how many buckets were written
-- include: record
local MOST_TASKS, OTHERS = 100, '*'
local TOTALS = {'enqueued', 'requeued', 'succeeded', 'failed', 'retried', 'cancelled', 'expired', 'released'}
local q = queue_at(1)
local wrong = layout_error(redis.call('HGET', q.meta, 'layout'))
if wrong then return wrong end
local now_ms = now()

local function unpacked(data) return data and cmsgpack.unpack(data) or {} end

local function add(into, sums)
  for name, count in pairs(sums) do into[name] = (into[name] or 0) + count end
end

-- A bucket is a map task -> name -> number; '' is the queue itself. Past so many tasks, the rest are one.
local function add_to(bucket, task, sums)
  if not bucket[task] then
    local count = 0
    for _ in pairs(bucket) do count = count + 1 end
    if count > MOST_TASKS then task = OTHERS end
    bucket[task] = bucket[task] or {}
  end
  add(bucket[task], sums)
end

-- What the totals have grown by since the last call. A queue that was dropped and made anew counts from zero.
local function growth()
  local found, last, grown, is_any = redis.call('HMGET', q.stats, unpack(TOTALS)), unpacked(redis.call('HGET', q.days, 'last')), {}, false
  local kept = {}
  for i = 1, #TOTALS do
    local total = tonumber(found[i] or 0)
    local more = total - (last[TOTALS[i]] or 0)
    if more < 0 then more = total end
    if more > 0 then grown[TOTALS[i]], is_any = more, true end
    kept[TOTALS[i]] = total
  end
  if is_any then redis.call('HSET', q.days, 'last', cmsgpack.pack(kept)) end
  return is_any and grown
end

local grown = growth()
if #ARGV < 2 and not grown then return 0 end

local function write(key, at, parts)
  local bucket = unpacked(redis.call('HGET', key, at))
  for i = 1, #parts, 2 do add_to(bucket, parts[i], parts[i + 1]) end
  redis.call('HSET', key, at, cmsgpack.pack(bucket))
end

-- Drop what is older than `keep` buckets, or ahead of a clock that was put back; seldom, as that reads all names.
local function trim(key, current, keep)
  if redis.call('HLEN', key) <= keep + keep / 8 then return end
  local gone = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    local at = tonumber(name)
    if at and (at <= current - keep or at > current) then gone[#gone + 1] = name end
  end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
end

local written, all = 0, {}
for i = 2, #ARGV, 3 do all[#all + 1], all[#all + 2] = ARGV[i + 1], unpacked(ARGV[i + 2]) end
if grown then all[#all + 1], all[#all + 2] = '', grown end
for _, level in ipairs({{q.minutes, 60000, 1440}, {q.hours, 3600000, 720}, {q.days, 86400000, 366}}) do
  local current = math.floor(now_ms / level[2])
  local parts = {}
  for i = 2, #ARGV, 3 do
    local at = math.floor((now_ms - 60000 * math.min(tonumber(ARGV[i]), 1440)) / level[2])
    parts[at] = parts[at] or {}
    local part, n = parts[at], (i - 2) / 3
    part[#part + 1], part[#part + 2] = all[2 * n + 1], all[2 * n + 2]
  end
  if grown then
    parts[current] = parts[current] or {}
    local part = parts[current]
    part[#part + 1], part[#part + 2] = '', grown
  end
  for at, part in pairs(parts) do
    write(level[1], string.format('%.0f', at), part)
    written = written + 1
  end
  trim(level[1], current, level[3])
end
write(q.days, 'all', all)
return written
