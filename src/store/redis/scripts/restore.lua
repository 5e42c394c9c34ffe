-- Puts back a lease that the server has lost, under its own fence: mints none.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 token (22 characters)   2 fence|since ms (16 and 13 digits)   3 |kind|holder id|holder name|note
--       4 ttl ms   5 ttl of the fence key ms   6 not_after: server time in µs after which nothing is done
--       7 events: the channel of the tag   8 history: "records ttl-ms" to keep, or nothing
-- Replies, each with the server's time in µs second:
--       0 now                    too late
--       1 now pttl value         put back
--       2 now last               nobody holds it, and it had ended; the last fence that is remembered
--       3 now pttl value         held: by this very lease, which was not lost, or by another; or not a lock
-- The layout of both keys stands in acquire.lua.
--
-- A counter that shows this fence, or a higher one, was written with the grant or after it: the server has lost nothing of it, so
-- the lease was released, forced or has run out, and must not come back. So it is refused, too, where only an extend was lost and
-- it has run out early. No counter, a lower one, or what is none of ours knows nothing of this grant.
if now > ARGV[6] then return {0, tonumber(now)} end

local value = call('GET', KEYS[1])
if value then return {3, tonumber(now), call('PTTL', KEYS[1]), value} end
local it = tools()
local counted, requests = it.read(call('GET', KEYS[2]))
local fence = sub(ARGV[2], 1, 16)
if #counted == 16 and counted >= fence then return {2, tonumber(now), tonumber(counted)} end

-- Whoever puts back an identity's lease relies on it: see `rely` in tools.lua.
local is_relied_on = sub(ARGV[3], 2, 2) == 'i'
local lease = ARGV[2] .. ARGV[3]
value = (is_relied_on and '2|' or '1|') .. ARGV[1] .. '|' .. lease
call('SET', KEYS[1], value, 'PX', ARGV[4])
call('SET', KEYS[2], fence .. it.rest(requests), 'PX', ARGV[5])
it.say('t' .. now .. ARGV[4] .. '|' .. lease, ARGV[7], ARGV[8])
return {1, tonumber(now), tonumber(ARGV[4]), value}
