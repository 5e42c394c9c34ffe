#!lua flags=allow-oom
-- Prolongs the lease that a holder has. Never makes one, and never shortens one unless asked.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 kind    2 holder id    3 lowest and 4 highest fence that this call may touch
--       5 ttl ms  6 shorten (0, 1)   7 not_after ms of server time   8 fence kept ms
-- Replies, each with the server's time in µs second:
--       0 now                         too late
--       1 now pttl value before       extended: it lasts pttl now and had `before` left
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value              held by another, in another way, or under a fence outside the bounds
--       5 now pttl value              not a lock, or one that never ends
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > ARGV[7] * 1000 then return {0, now} end

local value = redis.call('GET', KEYS[1])
if not value then
  return {2, now, tonumber(string.match(redis.call('GET', KEYS[2]) or '', '^%d+') or -1)}
end
local pttl = redis.call('PTTL', KEYS[1])
local fence, kind, holder = string.match(value, '^1|[^|]*|(%d+)|%d+|([ig])|([^|]*)|[^|]*|[^|]*$')
if not fence or pttl < 0 then return {5, now, pttl, value} end
fence = tonumber(fence)
if holder ~= ARGV[2] or kind ~= ARGV[1] or fence < tonumber(ARGV[3]) or fence > tonumber(ARGV[4]) then
  return {3, now, pttl, value}
end

local ttl = tonumber(ARGV[5])
if ttl < pttl and ARGV[6] == '0' then return {1, now, pttl, value, pttl} end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl + ARGV[8])
return {1, now, ttl, value, pttl}
