#!lua
-- Grants the lock of one tag, or says who has it.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 token (22 characters)   2 |kind|holder id|holder name|note   3 ttl ms   4 ttl of the fence key ms
--       5 not_after: server time in µs after which nothing is done     6 floor: highest fence that the caller has seen
-- Replies:
--       "FENCE"                  granted under this fence, which is the server's time in µs
--       1 now fence              granted under a fence ahead of the server's time
--       0 now                    too late, nothing was done
--       3 now pttl value         held: by this token since an earlier try, or by another
--       4 now                    no fence can be minted: the next would not be an exact number
-- The lock is the string 1|token|fence|since ms|kind|holder id|holder name|note, the fence key the fence, and once there was a
-- release a bar and the requests of the last three with nothing between, written by release.lua. Times and fences are 16
-- digits (since 13), so they stand at fixed places and compare as text; each number that Lua has to make costs as much as a
-- command.
local call, sub, byte = redis.call, string.sub, string.byte
local time = call('TIME')
local micros = time[2]
if #micros < 6 then micros = sub('00000' .. micros, -6) end
local now = time[1] .. micros
if now > ARGV[5] then return {0, tonumber(now)} end

local kept = call('GET', KEYS[2])
local fence, requests = now, ''
-- The newest two requests stay, 9 characters each; the release of this grant will be the third. With it the value has 44
-- characters: with 45 Redis would keep it in a memory block of its own.
if kept then requests = #kept > 34 and '|' .. sub(kept, -18) or sub(kept, 17) end
if now <= ARGV[6] or kept and (now <= kept or #kept ~= 16 and byte(kept, 17) ~= 124) then
  -- The counter or the floor is ahead of the clock, or somebody else has written the counter: now by number.
  local digits = string.match(kept or '', '^%d+') or '0'
  local next = math.max(tonumber(digits), tonumber(ARGV[6])) + 1
  if next >= 9007199254740991 then return {4, tonumber(now)} end
  if next > tonumber(now) then fence = string.format('%016.0f', next) end
  if #digits ~= 16 then requests = '' end
end

local since = time[1] .. sub(micros, 1, 3)
local value = call('SET', KEYS[1], '1|' .. ARGV[1] .. '|' .. fence .. '|' .. since .. ARGV[2], 'NX', 'GET', 'PX', ARGV[3])
if value then return {3, tonumber(now), call('PTTL', KEYS[1]), value} end
call('SET', KEYS[2], fence .. requests, 'PX', ARGV[4])
if fence == now then return fence end
return {1, tonumber(now), tonumber(fence)}
