-- How the release begins of what a call was granted that nobody heard the answer of: it is ended only while it is that call's, and
-- nobody of its holder relies on it.
--
-- KEYS, ARGV 1 to 7 and replies as of release.lua
-- ARGV  8 token
local swept, counted = call('GET', KEYS[1]), call('GET', KEYS[2])
if swept and sub(swept, 1, 24) ~= '1|' .. ARGV[8] and not (counted and string.find(counted, ARGV[1], 17, true)) then
  return {3, tonumber(now), call('PTTL', KEYS[1]), swept}
end
