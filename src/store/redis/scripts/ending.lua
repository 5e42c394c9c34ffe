-- How every release begins: answers where there is nothing for it to end. KEYS, ARGV 1 to 7 and replies as of release.lua.
local kept = call('GET', KEYS[2])
if kept and string.find(kept, ARGV[1], 17, true) then return {1, tonumber(now)} end
if now > ARGV[5] then return {0, tonumber(now)} end

local value = call('GET', KEYS[1])
if not value then return {2, tonumber(now), tonumber(kept and sub(kept, 1, 16)) or -1} end
local ended, since = sub(value, 26, 41), sub(value, 43, 55)
if sub(value, 57, 56 + #ARGV[2]) ~= ARGV[2] or ended < ARGV[3] or ended > ARGV[4] then
  return {3, tonumber(now), call('PTTL', KEYS[1]), value}
end
local said = 'r' .. now .. '0|' .. sub(value, 26)
