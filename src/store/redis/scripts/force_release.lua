#!lua flags=allow-oom
-- Ends whatever lease stands, on an operator's word.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 not_after µs of server time   2 fence kept ms
-- Replies, each with the server's time in µs second:
--       0 now                         too late
--       1 now pttl value              this was ended; also what is not a lock, or no counter
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then return {0, now} end

-- What is not a string is no lock and no counter of ours, but its place is.
local kind, counter = redis.call('TYPE', KEYS[1]).ok, redis.call('TYPE', KEYS[2]).ok
local kept = counter == 'string' and redis.call('GET', KEYS[2]) or ''
local last, requests = string.match(kept, '^(%d+)(.*)$')
local is_odd = counter ~= 'string' and counter ~= 'none'
if kind == 'none' and not is_odd then return {2, now, tonumber(last or -1)} end
local value = kind == 'string' and redis.call('GET', KEYS[1]) or ''
local pttl = redis.call('PTTL', KEYS[1])

if is_odd then redis.call('DEL', KEYS[2]) end
redis.call('DEL', KEYS[1])
-- Rubbish teaches no fence: the tag would count on from it.
local fence = string.match(value, '^1|[^|]*|(%d+)|%d+|[ig]|[^|]*|[^|]*|[^|]*$') or '0'
local number = tonumber(fence)
if number < 9007199254740991 and number > (tonumber(last) or 0) then last = string.format('%016.0f', number) end
if last then redis.call('SET', KEYS[2], last .. (requests or ''), 'PX', ARGV[2]) end
return {1, now, pttl, value}
