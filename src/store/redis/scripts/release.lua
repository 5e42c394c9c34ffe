#!lua flags=allow-oom
-- Ends the lease that a holder has, and remembers that this request did so.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 request   2 kind   3 holder id   4 lowest and 5 highest fence that this call may end
--       6 not_after ms of server time   7 fence kept ms
-- Replies, each with the server's time in µs second:
--       0 now                         too late
--       1 now since                   released; held since (ms of server time), or -1: this request had released it before
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value              held by another, in another way, or under a fence outside the bounds
--       5 now pttl value              not a lock, or one that never ends
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('GET', KEYS[2]) or ''
if string.find(kept, '|' .. ARGV[1], 1, true) then return {1, now, -1} end
if now > ARGV[6] * 1000 then return {0, now} end

local value = redis.call('GET', KEYS[1])
local last, requests = string.match(kept, '^(%d+)(.*)$')
if not value then return {2, now, tonumber(last or -1)} end
local pttl = redis.call('PTTL', KEYS[1])
local fence, since, kind, holder = string.match(value, '^1|[^|]*|(%d+)|(%d+)|([ig])|([^|]*)|[^|]*|[^|]*$')
if not fence or pttl < 0 then return {5, now, pttl, value} end
local number = tonumber(fence)
if holder ~= ARGV[3] or kind ~= ARGV[2] or number < tonumber(ARGV[4]) or number > tonumber(ARGV[5]) then
  return {3, now, pttl, value}
end

redis.call('DEL', KEYS[1])
-- The newest four requests, 11 characters and a bar each. A fence key that somebody deleted is written anew.
if not last or number > tonumber(last) then last = fence end
redis.call('SET', KEYS[2], last .. '|' .. ARGV[1] .. string.sub(requests or '', 1, 36), 'PX', ARGV[7])
return {1, now, tonumber(since)}
