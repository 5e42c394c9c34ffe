-- Grants the lock of one tag, or says who has it.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 token (22 characters)   2 |kind|holder id|holder name|note   3 ttl ms   4 ttl of the fence key ms
--       5 not_after: server time in µs after which nothing is done     6 floor: highest fence that the caller has seen
--       7 events: the channel of the tag   8 history: "records ttl-ms" to keep, or nothing
--       9 restart grace ms; left out where there is none
-- Replies:
--       "FENCE"                  granted under this fence, which is the server's time in µs
--       1 now fence              granted under a fence ahead of the server's time
--       0 now                    too late, nothing was done
--       3 now pttl value         held: by this token since an earlier try, or by another
--       4 now                    no fence can be minted: the next would not be an exact number
--       5 now                    free, but others come first: ask by queue.lua
--       6 now rest               nothing is known of the tag, and the server has not been up for the grace: rest is in ms
-- The lock is the string 1|token|fence|since ms|kind|holder id|holder name|note, with 2 in place of 1 where its holder relies on
-- it (tools.lua), the fence key the fence, and once there was a
-- release a bar and the requests of the last three with nothing between, written by release.lua and
-- hand_over.lua. While processes wait
-- (queue.lua), a plus stands in place of the bar. Times and fences are 16 digits (since 13), so they stand at fixed places and
-- compare as text; each number that Lua has to make costs as much as a command.
--
-- What was done is said on the channel, and kept in the history where there is one: kind letter, server's time, ms that are left,
-- |fence|since|kind|holder id|holder name|note; a line for each change. By pcall: what was done is done, also where it may not
-- be said.
local byte = string.byte
if now > ARGV[5] then return {0, tonumber(now)} end

local kept = call('GET', KEYS[2])
local fence, requests = now, ''
-- The newest two requests stay, 9 characters each; the release of this grant will be the third. With it the value has 44
-- characters: with 45 Redis would keep it in a memory block of its own.
if kept then requests = #kept > 34 and sub(kept, 17, 17) .. sub(kept, -18) or sub(kept, 17) end
if now <= ARGV[6] or kept and (now <= kept or #kept ~= 16 and byte(kept, 17) ~= 124) then
  if kept and byte(kept, 17) == 43 and call('EXISTS', KEYS[1]) == 0 then return {5, tonumber(now)} end
  -- The counter or the floor is ahead of the clock, or somebody else has written the counter: now by number.
  local digits = string.match(kept or '', '^%d+') or '0'
  fence = tools().next_fence(digits, ARGV[6])
  if not fence then return {4, tonumber(now)} end
  if #digits ~= 16 then requests = '' end
end

if not kept and ARGV[9] and call('EXISTS', KEYS[1]) == 0 then
  local rest = tools().warming(ARGV[9])
  if rest then return {6, tonumber(now), rest} end
end

local tail = fence .. '|' .. sub(now, 1, 13) .. ARGV[2]
local value = call('SET', KEYS[1], '1|' .. ARGV[1] .. '|' .. tail, 'NX', 'GET', 'PX', ARGV[3])
if value then
  if sub(value, 3, 24) ~= ARGV[1] then tools().rely(value, string.match(ARGV[2], '^|(i|[^|]*|)')) end
  return {3, tonumber(now), call('PTTL', KEYS[1]), value}
end
call('SET', KEYS[2], fence .. requests, 'PX', ARGV[4])
local said = 't' .. now .. ARGV[3] .. '|' .. tail
redis.pcall('PUBLISH', ARGV[7], said)
if ARGV[8] ~= '' then tools().remember(said, ARGV[8]) end
if fence == now then return fence end
return {1, tonumber(now), tonumber(fence)}
