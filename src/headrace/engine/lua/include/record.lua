-- A stored record, read by position; headrace/core/record.py is the other half of this contract.
local LIVE, FAILED, CANCELLED, EXPIRED = 3, 7, 8, 9
local DAY_MS = 86400000

local function state_of(record) return string.byte(record, 3) end

local function with_state(record, state)
  return string.sub(record, 1, 2) .. string.char(state) .. string.sub(record, 4)
end

-- A reason that is there stays: the record ends with nil (0xc0, which no UTF-8 text holds) only where there is none.
local function with_reason(record, text)
  return string.byte(record, -1) == 0xc0 and string.sub(record, 1, -2) .. cmsgpack.pack(text) or record
end

-- A live record (result, note and reason are nil) as a succeeded one with this result: a msgpack bin.
local function with_result(record, result) return string.sub(with_state(record, 6), 1, -4) .. result .. '\192\192' end

local function expires_of(record)
  if string.byte(record, 4) ~= 0xcf then return 0 end
  return struct.unpack('>I8', record, 5)
end

local function priority_of(record)
  local at = string.byte(record, 4) == 0xcf and 13 or 5
  local first = string.byte(record, at)
  if first == 0xd0 then return string.byte(record, at + 1) - 256 end
  if first >= 0xe0 then return first - 256 end
  return first
end

-- Milliseconds and microseconds of the server's clock: the only clock that decides.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
end

-- nil, or the error to return when a newer headrace wrote this queue.
local function layout_error(found)
  if found and tonumber(found) > tonumber(ARGV[1]) then
    return redis.error_reply('LAYOUT ' .. found)
  end
end
