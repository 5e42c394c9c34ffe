-- Says who holds each of several tags. In a cluster a page would have to be split by hash slot.
--
-- KEYS  1 lock    2 fence, and so on for each tag
-- Replies: 1 and the server's time in µs, then for each tag
--       2 last                   nobody holds it; the last fence that is remembered, or -1
--       3 pttl value             held; or not a lock
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) ~= 'table' then return value end
  -- What is not a string is no lock and no counter: the other tags are told nevertheless.
  if sub(value.err, 1, 9) == 'WRONGTYPE' then return '' end
  error(value)
end

local reply = {1, tonumber(now)}
for i = 1, #KEYS, 2 do
  local value, at = get(KEYS[i]), #reply
  if value then
    reply[at + 1], reply[at + 2], reply[at + 3] = 3, call('PTTL', KEYS[i]), value
  else
    reply[at + 1], reply[at + 2] = 2, tonumber(string.match(get(KEYS[i + 1]) or '', '^%d+') or -1)
  end
end
return reply
