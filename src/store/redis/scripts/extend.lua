-- Prolongs or shortens the lease that a holder has, as far as it is asked to. Never makes one.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 kind|holder id|    2 lowest and 3 highest fence that this call may touch
--       4 ttl ms   5 ttl of the fence key ms   6 reach: 0 never shortens, 1 sets, 2 never prolongs
--       7 not_after: server time in µs after which nothing is done   8 events: the channel of the tag
-- Replies, each with the server's time in µs second:
--       0 now                         too late
--       1 now pttl value before       done, if there was anything to do: it lasts pttl now and had `before` left
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
--       3 now pttl value              held by another, in another way, or under a fence outside the bounds; or not a lock
-- The layout of both keys stands in acquire.lua.
if now > ARGV[7] then return {0, tonumber(now)} end

local value = call('GET', KEYS[1])
if not value then
  return {2, tonumber(now), tonumber(string.match(call('GET', KEYS[2]) or '', '^%d+') or -1)}
end
local pttl = call('PTTL', KEYS[1])
local fence = sub(value, 26, 41)
if pttl < 0 or sub(value, 57, 56 + #ARGV[1]) ~= ARGV[1] or fence < ARGV[2] or fence > ARGV[3] then
  return {3, tonumber(now), pttl, value}
end

-- An identity's holder relies on the lease from now on: see `rely` in tools.lua.
if sub(ARGV[1], 1, 1) == 'i' then value = '2' .. sub(value, 2) end
local ttl = tonumber(ARGV[4])
if ttl < pttl and ARGV[6] == '0' or ttl > pttl and ARGV[6] == '2' then
  call('SET', KEYS[1], value, 'KEEPTTL')
  return {1, tonumber(now), pttl, value, pttl}
end
call('SET', KEYS[1], value, 'PX', ttl)
call('PEXPIRE', KEYS[2], ARGV[5])
redis.pcall('PUBLISH', ARGV[8], 'e' .. now .. ttl .. '|' .. sub(value, 26))
return {1, tonumber(now), ttl, value, pttl}
