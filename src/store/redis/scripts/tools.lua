-- What is seldom needed: made when it is asked for, because each function that is made costs as much as a command.
--
-- The other keys of a tag stand beside the lock, in its hash slot; they are not declared because a declared key costs as much
-- as two arguments, and most calls touch none of them.
--   history  what was said of grants and their ends, newest first
--   queue    the processes that wait, named by the channel on which each hears of its grants, in the order in which they came
--   asks     process -> until when it counts as living, until when its place lasts, its floor (16 digits each), then
--            ttl ms|ttl of the fence key ms|token|kind|holder id|…
local function tools()
  local beside = sub(KEYS[1], 1, -5)
  local history, queue, asks = beside .. 'history', beside .. 'queue', beside .. 'asks'
  local it = {}

  -- The fence after those that were counted and seen, and not behind the clock; nothing where it would not be an exact number.
  function it.next_fence(counted, floor)
    local next = math.max(tonumber(counted), tonumber(floor)) + 1
    if next >= 9007199254740991 then return nil end
    return next > tonumber(now) and string.format('%016.0f', next) or now
  end

  -- How long a server that was just started has yet to wait for what it has lost, in ms; nothing where it has waited. INFO counts
  -- in whole seconds of the clock: one more makes sure that the grace is over. It is never told more than the grace itself, because
  -- a clock that was set back may be set right again.
  function it.warming(grace)
    local uptime = tonumber(string.match(call('INFO', 'server'), 'uptime_in_seconds:(-?%d+)'))
    local rest = (math.ceil(grace / 1000) + 1 - uptime) * 1000 - math.floor(tonumber(micros) / 1000)
    if rest > 0 then return math.min(rest, tonumber(grace)) end
  end

  -- Somebody of its holder, whose badge this is, is told of a lease of theirs: from then on they rely on it (2 in place of 1), and
  -- it is not swept (sweep.lua). No badge: it is a guard's, which belongs to the call that was granted it.
  function it.rely(value, badge)
    if badge and sub(value, 1, 2) == '1|' and sub(value, 57, 56 + #badge) == badge then
      call('SET', KEYS[1], '2' .. sub(value, 2), 'KEEPTTL')
    end
  end

  -- Says what was done, and keeps it where there is a history.
  function it.say(said, events, kept)
    redis.pcall('PUBLISH', events, said)
    if kept ~= '' then it.remember(said, kept) end
  end

  -- Keeps what was said, as many records and ms as `kept` says. By pcall: what was done is done.
  function it.remember(said, kept)
    local records, ttl = string.match(kept, '^(%d+) (%d+)$')
    redis.pcall('LPUSH', history, said)
    redis.pcall('LTRIM', history, 0, records - 1)
    redis.pcall('PEXPIRE', history, ttl)
  end

  -- The first process that counts as living, and what it asks for; `here` is one that does because it calls. Those whose place
  -- has run out are forgotten on the way. None where somebody else has written those keys: whoever holds the lock releases it
  -- nevertheless.
  function it.first(here)
    local ahead = 0
    while true do
      local process = redis.pcall('ZRANGE', queue, ahead, ahead)[1]
      local ask = process and redis.pcall('HGET', asks, process)
      if not process or type(ask) == 'table' then return nil end
      local is_ask = ask and string.find(sub(ask, 49), '^%d+|%d+|[^|]*|') and not string.find(sub(ask, 1, 48), '%D')
      if is_ask and (sub(ask, 1, 16) > now or process == here) then return process, ask end
      if is_ask and sub(ask, 17, 32) > now then
        ahead = ahead + 1
      else
        it.forget(process)
      end
    end
  end

  function it.forget(process)
    redis.pcall('ZREM', queue, process)
    redis.pcall('HDEL', asks, process)
  end

  -- Gives a process a place at the end, or renews the one that it has. `life` is in ms; for the
  -- first half of it the process counts as living. The order is kept also by a clock that was set back.
  function it.place(process, life, ask)
    local last = tonumber(call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2]) or 0
    call('ZADD', queue, 'NX', string.format('%.0f', math.max(tonumber(now), last + 1)), process)
    call('HSET', asks, process, string.format('%016.0f%016.0f', now + life * 500, now + life * 1000) .. ask)
    for _, key in ipairs({queue, asks}) do
      if call('PTTL', key) < tonumber(life) then call('PEXPIRE', key, life) end
    end
  end

  -- What stands behind the fence in its key: whether processes wait.
  function it.bar() return call('EXISTS', queue) == 1 and '+' or '|' end

  -- Bar or plus, and the requests that a fence key is to keep: the newest three.
  function it.rest(requests)
    local bar = it.bar()
    return requests == '' and bar == '|' and '' or bar .. sub(requests, -27)
  end

  -- Fence and requests of a fence key; what somebody else has written there counts as a fence, if it is a number.
  function it.read(kept)
    local digits, mark, requests = string.match(kept or '', '^(%d+)([|+]?)(.*)$')
    if not digits then return '0', '' end
    if #digits ~= 16 or mark == '' then requests = '' end
    return digits, requests
  end

  -- Writes the mark of the queue where it has changed, and nothing else of the fence key. A counter that is gone is written anew
  -- from the lease; one that somebody else has written is left alone.
  function it.mark(kept, value)
    if not kept then
      if #value > 41 then call('SET', KEYS[2], sub(value, 26, 41) .. it.rest(''), 'PX', 86400000) end
    elseif string.find(kept, '^' .. string.rep('%d', 16) .. '[|+]?') then
      local marked = sub(kept, 1, 16) .. it.rest(sub(kept, 18))
      if kept ~= marked then call('SET', KEYS[2], marked, 'KEEPTTL') end
    end
  end

  -- Grants the free lock to a process for as long as it counts as living; by then it has confirmed or is dead. Nothing where no
  -- fence can be minted. Returns what is to be said, the value, and how long it lasts in ms.
  function it.grant(process, ask, counted, requests)
    local fence = it.next_fence(counted, sub(ask, 33, 48))
    if not fence then return nil end
    local ttl, fence_ttl, token, tail = string.match(sub(ask, 49), '^(%d+)|(%d+)|([^|]*)(|.*)$')
    local living = tonumber(sub(ask, 1, 16))
    -- No longer than it ever counted as living, whatever the clock shows now.
    local left = math.min(living - now, sub(ask, 17, 32) - living)
    left = math.max(1, math.min(tonumber(ttl), math.ceil(left / 1000)))
    tail = fence .. '|' .. sub(now, 1, 13) .. tail
    local value = '1|' .. token .. '|' .. tail
    it.forget(process)
    call('SET', KEYS[1], value, 'PX', left)
    call('SET', KEYS[2], fence .. it.rest(requests), 'PX', fence_ttl)
    redis.pcall('PUBLISH', process, KEYS[1])
    return 't' .. now .. left .. '|' .. tail, value, left
  end

  return it
end
