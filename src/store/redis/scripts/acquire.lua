#!lua
-- Grants the lock of one tag, or says who has it.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 token   2 kind (i, g)   3 holder id   4 holder name   5 note        text, | and % escaped
--       6 ttl ms  7 not_after ms of server time   8 floor: highest fence that the caller has seen   9 fence kept ms
-- Replies, each with the server's time in µs second:
--       0 now                         too late: after not_after nothing is done
--       1 now fence                   granted
--       2 now pttl value              this token holds it already: granted before, the reply was lost
--       3 now pttl value              held; the caller sees by whom
--       4 now fence                   no fence can be minted: it would leave the range of exact numbers
--       5 now pttl value              what stands at the key is not a lock, or never ends
-- The lock is the string 1|token|fence|since ms|kind|holder id|holder name|note. The fence key is the string
-- fence|request|request|…, whose requests are the last releases, written by release.lua.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > ARGV[7] * 1000 then return {0, now} end

local value = redis.call('GET', KEYS[1])
if value then
  local pttl = redis.call('PTTL', KEYS[1])
  local token = string.match(value, '^1|([^|]*)|%d+|%d+|[ig]|[^|]*|[^|]*|[^|]*$')
  if not token or pttl < 0 then return {5, now, pttl, value} end
  if token == ARGV[1] then return {2, now, pttl, value} end
  return {3, now, pttl, value}
end

local kept = redis.call('GET', KEYS[2]) or ''
local last, requests = string.match(kept, '^(%d+)(.*)$')
local fence = math.max((tonumber(last) or 0) + 1, now, ARGV[8] + 1)
if fence >= 9007199254740991 then return {4, now, last or ARGV[8]} end

local digits = string.format('%.0f', fence)
local since = string.format('%.0f', math.floor(now / 1000))
redis.call('SET', KEYS[2], digits .. (requests or ''), 'PX', ARGV[6] + ARGV[9])
redis.call('SET', KEYS[1], table.concat({1, ARGV[1], digits, since, ARGV[2], ARGV[3], ARGV[4], ARGV[5]}, '|'), 'PX', ARGV[6])
return {1, now, fence}
