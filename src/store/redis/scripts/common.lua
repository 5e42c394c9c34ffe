-- What every script begins with; acquire.lua has the layout of the keys.
local call, sub = redis.call, string.sub
-- The server's time: µs in 16 digits.
local time = call('TIME')
local micros = time[2]
if #micros < 6 then micros = sub('00000' .. micros, -6) end
local now = time[1] .. micros
