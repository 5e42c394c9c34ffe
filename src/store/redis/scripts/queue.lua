-- A look of somebody who waits: grants the lock, confirms that it was granted, or keeps a place in the queue.
--
-- KEYS  1 lock    2 fence
-- ARGV  1 to 8 as of acquire.lua
--       9 process, or nothing: whoever asks will not wait, and gets no place
--       10 token for which the process stood in the queue before, or nothing   11 how long its place lasts, ms
--       12 restart grace ms; left out where there is none
-- Replies:
--       1 now pttl value         the token holds, for its whole ttl
--       2 now pttl value         the token before holds, and has yet to confirm; nothing was done
--       3 now pttl value         held by another: the process has its place, unless it is the identity who asks
--       0 now                    too late, nothing was done
--       4 now                    nothing was done: no fence can be minted
--       6 now rest               as of acquire.lua; the process has no place
if now > ARGV[5] then return {0, tonumber(now)} end
local it = tools()
local process, ask = ARGV[9], ARGV[6] .. ARGV[3] .. '|' .. ARGV[4] .. '|' .. ARGV[1] .. ARGV[2]
local value, kept = call('GET', KEYS[1]), call('GET', KEYS[2])

-- Whether somebody else than the one who asks has a lease: no identity waits for a lease of its own. No badge: a guard does.
local badge = string.match(ARGV[2], '^|(i|[^|]*|)')
local function is_others(lease)
  return string.find(lease, '^[12]|') and #lease > 56 and not (badge and sub(lease, 57, 56 + #badge) == badge)
end

if not value then
  local rest = not kept and ARGV[12] and it.warming(ARGV[12])
  if rest then
    it.forget(process)
    return {6, tonumber(now), rest}
  end
  local counted, requests = it.read(kept)
  local leader, asked = it.first(process)
  if leader and leader ~= process then
    local granted, theirs, left = it.grant(leader, asked, counted, requests)
    if not granted then return {4, tonumber(now)} end
    it.rely(theirs, badge)
    if process ~= '' and is_others(theirs) then
      it.place(process, ARGV[11], ask)
      it.mark(call('GET', KEYS[2]), theirs)
    end
    it.say(granted, ARGV[7], ARGV[8])
    return {3, tonumber(now), left, theirs}
  end
  local fence = it.next_fence(counted, ARGV[6])
  if not fence then return {4, tonumber(now)} end
  it.forget(process)
  local tail = fence .. '|' .. sub(now, 1, 13) .. ARGV[2]
  value = '1|' .. ARGV[1] .. '|' .. tail
  call('SET', KEYS[1], value, 'PX', ARGV[3])
  call('SET', KEYS[2], fence .. it.rest(requests), 'PX', ARGV[4])
  it.say('t' .. now .. ARGV[3] .. '|' .. tail, ARGV[7], ARGV[8])
  return {1, tonumber(now), tonumber(ARGV[3]), value}
end

local pttl, token = call('PTTL', KEYS[1]), sub(value, 3, 24)
if token == ARGV[1] then
  if pttl >= 0 and pttl < tonumber(ARGV[3]) then
    pttl = tonumber(ARGV[3])
    call('PEXPIRE', KEYS[1], pttl)
    call('PEXPIRE', KEYS[2], ARGV[4])
    redis.pcall('PUBLISH', ARGV[7], 'e' .. now .. pttl .. '|' .. sub(value, 26))
  end
  it.forget(process)
  it.mark(kept, value)
  return {1, tonumber(now), pttl, value}
elseif token == ARGV[10] then
  return {2, tonumber(now), pttl, value}
end
it.rely(value, badge)
if process ~= '' and pttl >= 0 and is_others(value) then
  it.place(process, ARGV[11], ask)
  it.mark(kept, value)
end
return {3, tonumber(now), pttl, value}
