-- Ends whatever lease stands, on an operator's word. Where processes wait, the first gets the lock.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 not_after: server time in µs after which nothing is done   2 fence kept ms   3 |by|why
--       4 events: the channel of the tag   5 history: "records ttl-ms" to keep, or nothing
-- Replies, each with the server's time in µs second:
--       0 now                         too late
--       1 now pttl value              this was ended; also what is not a lock, or no counter
--       2 now last                    nobody holds it; the last fence that is remembered, or -1
if now > ARGV[1] then return {0, tonumber(now)} end
local it = tools()

-- What is not a string is no lock and no counter of ours, but its place is.
local kind, counter = call('TYPE', KEYS[1]).ok, call('TYPE', KEYS[2]).ok
local kept = counter == 'string' and call('GET', KEYS[2]) or ''
local last, requests = string.match(kept, '^(%d+)[|+]?(.*)$')
local is_odd = counter ~= 'string' and counter ~= 'none'
if kind == 'none' and not is_odd then return {2, tonumber(now), tonumber(last or -1)} end
local value = kind == 'string' and call('GET', KEYS[1]) or ''
local pttl = call('PTTL', KEYS[1])

if is_odd then call('DEL', KEYS[2]) end
call('DEL', KEYS[1])
-- Rubbish teaches no fence: the tag would count on from it.
local fence = string.match(value, '^[12]|[^|]*|(%d+)|%d+|[ig]|[^|]*|[^|]*|[^|]*$')
local said = fence and 'f' .. now .. '0|' .. sub(value, 26) .. ARGV[3]
local number = tonumber(fence or 0)
if number < 9007199254740991 and number > (tonumber(last) or 0) then last = string.format('%016.0f', number) end
local process, ask
if string.find(kept, '^%d+%+') then process, ask = it.first() end
local granted = process and it.grant(process, ask, last or '0', requests or '')
if not granted and last then call('SET', KEYS[2], last .. it.rest(requests or ''), 'PX', ARGV[2]) end
if said or granted then
  it.say((said or '') .. (said and granted and '\n' or '') .. (granted or ''), ARGV[4], ARGV[5])
end
return {1, tonumber(now), pttl, value}
