-- Ends the lease that a holder has, as release.lua does, and grants the lock to the next who waits in the same process.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 to 7 as of release.lua
--       8 token of the next   9 |kind|holder id|holder name|note   10 ttl ms   11 ttl of the fence key ms   12 floor
--       13 process   14 others come first (0, 1): another process gets the lock, where one waits, and the next is queued
--       15 how long the place of a process lasts, ms
-- Replies:
--       "NOWSINCE"               released and granted under the fence NOW; 16 and 13 digits
--       6 now since fence        the same under a fence ahead of the server's time
--       7 now since pttl value   released, and granted to another process; the next is queued
--       0, 1, 2, 3               as of release.lua, and nothing was granted
--       4 now                    nothing was released or granted: no fence can be minted
local fence, bar, requests = now, '|', sub(kept or '', 18)
if not kept or kept < ended or now <= kept or now <= ARGV[12] or string.byte(kept, 17) ~= 124 then
  -- Others wait, or the counter is gone, ahead of the clock, or somebody else's.
  local it = tools()
  local counted
  counted, requests = it.read(kept and kept >= ended and kept or ended)
  fence = it.next_fence(counted, ARGV[12])
  if not fence then return {4, tonumber(now)} end
  it.forget(ARGV[13])
  local process, ask
  if ARGV[14] == '1' then process, ask = it.first() end
  if process then
    it.place(ARGV[13], ARGV[15], ARGV[12] .. ARGV[10] .. '|' .. ARGV[11] .. '|' .. ARGV[8] .. ARGV[9])
    local granted, theirs, left = it.grant(process, ask, counted, requests .. ARGV[1])
    if not granted then return {4, tonumber(now)} end
    it.say(said .. '\n' .. granted, ARGV[6], ARGV[7])
    return {7, tonumber(now), tonumber(since), left, theirs}
  end
  bar = it.bar()
end

local tail = fence .. '|' .. sub(now, 1, 13) .. ARGV[9]
call('SET', KEYS[1], '1|' .. ARGV[8] .. '|' .. tail, 'PX', ARGV[10])
-- The newest two, and this one.
call('SET', KEYS[2], fence .. bar .. sub(requests, -18) .. ARGV[1], 'PX', ARGV[11])
said = said .. '\nt' .. now .. ARGV[10] .. '|' .. tail
redis.pcall('PUBLISH', ARGV[6], said)
if ARGV[7] ~= '' then tools().remember(said, ARGV[7]) end
if fence == now then return now .. since end
return {6, tonumber(now), tonumber(since), tonumber(fence)}
