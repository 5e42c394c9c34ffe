#!lua flags=allow-oom
-- Ends the lease that a holder has, and remembers that this request did so.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 request (9 characters)   2 kind|holder id|   3 lowest and 4 highest fence that this call may end
--       5 not_after: server time in µs after which nothing is done
-- Replies:
--       "NOWSINCE"               released: the server's time in µs and the start of the lease in ms, 16 and 13 digits
--       0 now                    too late, nothing was done
--       1 now                    this request had released it before
--       2 now last               nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value         held by another, in another way, or under a fence outside the bounds; or not a lock
-- The layout of both keys stands in acquire.lua. The fence key outlives the lock by its own ttl, which is left as it is.
local call, sub = redis.call, string.sub
local time = call('TIME')
local micros = time[2]
if #micros < 6 then micros = sub('00000' .. micros, -6) end
local now = time[1] .. micros
local kept = call('GET', KEYS[2])
if kept and string.find(kept, ARGV[1], 17, true) then return {1, tonumber(now)} end
if now > ARGV[5] then return {0, tonumber(now)} end

local value = call('GET', KEYS[1])
if not value then return {2, tonumber(now), tonumber(kept and sub(kept, 1, 16)) or -1} end
local fence = sub(value, 26, 41)
if sub(value, 57, 56 + #ARGV[2]) ~= ARGV[2] or fence < ARGV[3] or fence > ARGV[4] then
  return {3, tonumber(now), call('PTTL', KEYS[1]), value}
end

call('DEL', KEYS[1])
if kept and kept >= fence then
  call('SET', KEYS[2], kept .. (#kept == 16 and '|' or '') .. ARGV[1], 'KEEPTTL')
else
  -- Somebody deleted or changed the counter: the lease has it, and a day is what it is kept by default.
  call('SET', KEYS[2], fence .. '|' .. ARGV[1], 'PX', 86400000)
end
return now .. sub(value, 43, 55)
