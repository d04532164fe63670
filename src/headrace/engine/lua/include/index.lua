-- What jobs are found by, kept only for a queue whose meta says `indexed` ('0': being made, '1': whole). Keys named after the queue's own:
--   index hash (id -> its terms, joined by \0)   index:TERM zset (id -> when it was created, ms)   terms zset (the terms that have one, in order)
-- Terms: task:NAME, tag:TAG, args.PATH:VALUE (of fields that the task declares), error (it has failed, or an attempt of it), ? (too large to be read here).
-- headrace/core/terms.py is the other half of this contract.
local MOST_PARTS, TERM_BYTES, VALUES_A_CALL = 4000, 200, 1000

-- Bytes that follow the first one of a msgpack value; negative: that many bytes of length come first, then the value and `more`.
local FIXED = {[0xc0] = 0, [0xc2] = 0, [0xc3] = 0, [0xca] = 4, [0xcb] = 8, [0xcc] = 1, [0xcd] = 2, [0xce] = 4, [0xcf] = 8,
  [0xd0] = 1, [0xd1] = 2, [0xd2] = 4, [0xd3] = 8, [0xd4] = 2, [0xd5] = 3, [0xd6] = 5, [0xd7] = 9, [0xd8] = 17}
local SIZED = {[0xc4] = {'>B', 1, 0}, [0xc5] = {'>I2', 2, 0}, [0xc6] = {'>I4', 4, 0}, [0xc7] = {'>B', 1, 1}, [0xc8] = {'>I2', 2, 1}, [0xc9] = {'>I4', 4, 1},
  [0xd9] = {'>B', 1, 0}, [0xda] = {'>I2', 2, 0}, [0xdb] = {'>I4', 4, 0}}
local NESTED = {[0xdc] = {'>I2', 2, 1}, [0xdd] = {'>I4', 4, 1}, [0xde] = {'>I2', 2, 2}, [0xdf] = {'>I4', 4, 2}}

-- Where the value after the one at `at` begins; nil when that has too many parts.
local function after(s, at)
  local left, parts = 1, 0
  while left > 0 do
    parts = parts + 1
    if parts > MOST_PARTS then return nil end
    local b = string.byte(s, at)
    left, at = left - 1, at + 1
    if b >= 0xa0 and b <= 0xbf then at = at + b - 0xa0
    elseif b >= 0x80 and b <= 0x8f then left = left + 2 * (b - 0x80)
    elseif b >= 0x90 and b <= 0x9f then left = left + b - 0x90
    elseif FIXED[b] then at = at + FIXED[b]
    elseif SIZED[b] then at = at + SIZED[b][2] + SIZED[b][3] + struct.unpack(SIZED[b][1], s, at)
    elseif NESTED[b] then
      left = left + NESTED[b][3] * struct.unpack(NESTED[b][1], s, at)
      at = at + NESTED[b][2]
    end
  end
  return at
end

-- The text at `at`, and where it ends; nil when it is none.
local function text_at(s, at)
  local b = string.byte(s, at)
  if b >= 0xa0 and b <= 0xbf then return string.sub(s, at + 1, at + b - 0xa0), at + 1 + b - 0xa0 end
  local sized = b >= 0xd9 and SIZED[b]
  if not sized then return nil end
  local first = at + 1 + sized[2]
  local length = struct.unpack(sized[1], s, at + 1)
  return string.sub(s, first, first + length - 1), first + length
end

-- How many items an array (of one part each) or map (of two) at `at` has, and where they begin; 0 for nil.
local function items_at(s, at)
  local b = string.byte(s, at)
  if b >= 0x80 and b <= 0x9f then return b % 16, at + 1 end
  local nested = NESTED[b]
  if nested then return struct.unpack(nested[1], s, at + 1), at + 1 + nested[2] end
  return 0, at + 1
end

local function add_options(terms, s, at)
  local count, place = items_at(s, at)
  for _ = 1, count do
    local name, value
    name, value = text_at(s, place)
    if name == 'g' then
      local tags, tag_at = items_at(s, value)
      for _ = 1, tags do
        local tag
        tag, tag_at = text_at(s, tag_at)
        terms[#terms + 1] = 'tag:' .. tag
      end
    elseif name == 'f' then
      local fields, at_field = items_at(s, value)
      for _ = 1, fields do
        local path, text
        path, at_field = text_at(s, at_field)
        text, at_field = text_at(s, at_field)
        terms[#terms + 1] = 'args.' .. path .. ':' .. text
      end
    end
    place = after(s, value)
    if not place then return false end
  end
  return true
end

-- A record's terms, and when the job was created (0 where that cannot be read).
local function terms_of(record)
  local at = string.byte(record, 4) == 0xcf and 13 or 5 -- behind layout, state and expiry
  at = after(record, at)
  local task
  task, at = text_at(record, at)
  local terms = {'task:' .. task}
  at = after(record, at)
  local created = 0
  if at and string.byte(record, at) == 0xcf then created = struct.unpack('>I8', record, at + 1) end
  local options = at and after(record, at)
  if not options or not add_options(terms, record, options) then
    terms[#terms + 1] = '?'
  else
    local attempt = after(record, options)
    if string.byte(record, 3) == 7 or items_at(record, after(record, attempt)) > 0 then terms[#terms + 1] = 'error' end
  end
  local found, seen = {}, {}
  for _, term in ipairs(terms) do
    term = string.gsub(term, '%z', ' ')
    if #term > TERM_BYTES then term = string.gsub(string.sub(term, 1, TERM_BYTES), '[\128-\255]+$', '') end
    if not seen[term] then found[#found + 1], seen[term] = term, true end
  end
  return found, created
end

-- One command for all values of a key, or as many as Lua lets through.
local function send_all(command, by_key)
  for key, values in pairs(by_key) do
    for first = 1, #values, VALUES_A_CALL do redis.call(command, key, unpack(values, first, math.min(first + VALUES_A_CALL - 1, #values))) end
  end
end

-- Note what these jobs are found by; `records[i]` is that of `ids[i]`.
local function index_put(q, ids, records)
  if #ids == 0 then return end
  local all, by_term, names = {}, {}, {}
  for i = 1, #ids do
    local terms, created = terms_of(records[i])
    all[#all + 1], all[#all + 2] = ids[i], table.concat(terms, '\0')
    for _, term in ipairs(terms) do
      local key = key_of(q, 'index:' .. term)
      local pairs_of = by_term[key]
      if not pairs_of then
        pairs_of = {}
        by_term[key] = pairs_of
        names[#names + 1], names[#names + 2] = 0, term
      end
      pairs_of[#pairs_of + 1], pairs_of[#pairs_of + 2] = created, ids[i]
    end
  end
  send_all('HSET', {[key_of(q, 'index')] = all})
  send_all('ZADD', by_term)
  send_all('ZADD', {[key_of(q, 'terms')] = names})
end

-- These jobs are gone.
local function index_drop(q, ids)
  if #ids == 0 then return end
  local index = key_of(q, 'index')
  local by_term, keys = {}, {}
  for first = 1, #ids, VALUES_A_CALL do
    local last = math.min(first + VALUES_A_CALL - 1, #ids)
    local found = redis.call('HMGET', index, unpack(ids, first, last))
    for i = first, last do
      for term in string.gmatch(found[i - first + 1] or '', '[^%z]+') do
        local key = key_of(q, 'index:' .. term)
        if not by_term[key] then by_term[key], keys[#keys + 1] = {}, {key, term} end
        by_term[key][#by_term[key] + 1] = ids[i]
      end
    end
    redis.call('HDEL', index, unpack(ids, first, last))
  end
  send_all('ZREM', by_term)
  for _, one in ipairs(keys) do
    if redis.call('EXISTS', one[1]) == 0 then redis.call('ZREM', key_of(q, 'terms'), one[2]) end
  end
end

-- For who has not read the queue's meta: whether there is anything to keep.
local function is_indexed(q) return redis.call('EXISTS', key_of(q, 'index')) == 1 end

-- Their records are others now.
local function index_again(q, ids, records)
  index_drop(q, ids)
  index_put(q, ids, records)
end
