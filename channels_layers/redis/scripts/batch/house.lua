-- Keeping house: signs of life, leaving, flushing, numbers, what clients ask each other.

local function load_house()
  load_queues()
  load_groups()
  local group_keys, forget_some = groups.group_keys, groups.forget_some
  local forget_if_empty = groups.forget_if_empty
  local queue_of, length_of, note_head = queues.queue_of, queues.length_of, queues.note_head
  local family, parse, return_in_hand = queues.family, queues.parse, queues.return_in_hand

  -- Whether a client lives, whose home this is.
  function operations.alive(client)
    return has_inbox(client) and 1 or 0
  end

  -- Drop what has expired in some queues that perhaps nobody reads, and the names of some groups.
  local function drop_expired()
    local registry = base .. 'rq:' .. gen
    for _, channel in ipairs(call('SRANDMEMBER', registry, 64)) do
      if length_of(channel, queue_of(channel)) == 0 then
        call('SREM', registry, channel)
      end
    end
    for _, group in ipairs(call('SRANDMEMBER', base .. 'rg:' .. gen, 64)) do
      call('ZREMRANGEBYSCORE', (group_keys(group)), '-inf', text(now))
      forget_if_empty(group)
    end
  end

  -- Add what a client has counted to what all queues have, or take it away again: 1 or -1.
  local function add_numbers(numbers, sign)
    local tally, found = base .. 'tally', cmsgpack.unpack(numbers)[2]
    local counters = found.dropped_count
    counters.accepted, counters.refused = found.messages_count, found.channel_full_count
    for field, many in pairs(counters) do
      if many > 0 then
        call('HINCRBY', tally, field, text(sign * many))
      end
    end
    last_longer(tally, TTL)
  end

  -- Take away again what was added for a client that others took for dead.
  local function take_back(client)
    local was = call('GET', key('was:', client))
    if was then
      call('DEL', key('was:', client))
      add_numbers(was, -1)
    end
  end

  -- Show life: counter, numbers, 1 at home, generation seen, then groups that have members here.
  -- {1 if this client is known here, 1 if it should look after the others, their beats}
  function operations.beat(counter, numbers, at_home, seen, ...)
    local beats = base .. 'beats'
    local is_known = call('HEXISTS', beats, me) == 1
    if at_home == '1' then
      is_known = is_known and has_inbox(me)
    end
    if not is_known then
      return {0}
    end
    if at_home == '1' then
      take_back(me)
      call('HSET', base .. 'stats', me, numbers)
      call('HSET', base .. 'seen', me, seen)
    end
    call('HSET', beats, me, counter)
    for _, name in ipairs({'era', 'beats', 'stats', 'seen', 'topology', 'tally', 'old'}) do
      last_longer(base .. name, TTL)
    end
    for _, kind in ipairs({'in:', 'sub:', 'hand:', 'acc:', 'want:', 'lane:', 'm:' .. gen .. ':'}) do
      call('PEXPIRE', key(kind, me), TTL)
    end
    for _, group in ipairs({...}) do
      local members, owners = group_keys(group)
      last_longer(members, TTL)
      last_longer(owners, TTL)
    end
    last_longer(base .. 'rg:' .. gen, TTL)
    for _, name in ipairs(call('HKEYS', key('want:', me))) do
      last_longer(key('w:', name), TTL)
    end
    local sweeper = base .. 'sweeper'
    if call('SET', sweeper, me, 'NX', 'PX', 3000) or call('GET', sweeper) == me then
      call('PEXPIRE', sweeper, 3000)
      drop_expired()
      return {1, 1, call('HGETALL', beats)}
    end
    return {1, 0}
  end

  -- Forget a client whose counter stands still, or itself: client, counter or "", its numbers if
  -- they are newer than those that it has shown, or "".
  -- 1: done; 0: it lives; 2: there is more to remove, ask again.
  function operations.forget(client, counter, numbers)
    local beats = base .. 'beats'
    if counter ~= '' and call('HGET', beats, client) ~= counter then
      return 0
    end
    for _, name in ipairs(call('HKEYS', key('want:', client))) do
      call('ZREM', key('w:', name), client)
    end
    call('UNLINK', key('want:', client), key('in:', client), key('acc:', client))
    local held = {}
    for _, found in ipairs(call('XRANGE', key('sub:', client), '-', '+', 'COUNT', SLICE)) do
      held[#held + 1] = found[1]
    end
    return_in_hand(client, held)
    local hand = call('HKEYS', key('hand:', client))
    return_in_hand(client, hand)
    if forget_some(client) or #held == SLICE then
      return 2
    end
    call('UNLINK', key('sub:', client), key('hand:', client))
    local shown = call('HGET', base .. 'stats', client)
    if numbers == '' and shown then
      numbers = shown
    end
    local was_known = call('HDEL', beats, client) == 1
    call('HDEL', base .. 'stats', client)
    call('HDEL', base .. 'seen', client)
    is_leaving = is_leaving or client == me
    call('UNLINK', key('lane:', client))
    if call('GET', base .. 'sweeper') == client then
      call('DEL', base .. 'sweeper')
    end
    if was_known and numbers ~= '' then
      take_back(client)
      add_numbers(numbers, 1)
      if client ~= me then
        call('SET', key('was:', client), numbers, 'PX', EXPIRY)
      end
    end
    return 1
  end

  -- Flush: every client whose home this is hears of it: its id, the same on all shards.
  -- {new generation}
  function operations.flush(id)
    call('HSET', era_key, 'flush', id)
    local old = gen
    gen = text(call('HINCRBY', era_key, 'gen', 1))
    for _, client in ipairs(call('HKEYS', base .. 'beats')) do
      call('UNLINK', base .. 'm:' .. old .. ':' .. client, key('acc:', client))
      if has_inbox(client) then
        tell(client, 'F', id)
      end
    end
    call('RPUSH', base .. 'old', old)
    last_longer(base .. 'old', TTL)
    return {gen}
  end

  -- Remove some of what was flushed. 1: there is more.
  function operations.clean()
    local old = call('LINDEX', base .. 'old', 0)
    if not old then
      return 0
    end
    local channels = call('SPOP', base .. 'rq:' .. old, SLICE)
    for _, channel in ipairs(channels) do
      call('UNLINK', base .. 'q:' .. old .. ':' .. channel)
      if family(channel) then
        call('UNLINK', base .. 'fam:' .. old .. ':' .. family(channel))
      end
    end
    local groups = call('SPOP', base .. 'rg:' .. old, SLICE)
    for _, group in ipairs(groups) do
      call('UNLINK', base .. 'g:' .. old .. ':' .. group, base .. 'go:' .. old .. ':' .. group)
    end
    if #channels == 0 and #groups == 0 then
      call('LPOP', base .. 'old')
    end
    return call('EXISTS', base .. 'old')
  end

  -- Which clients, whose home this is, have not seen a flush: generation.
  function operations.unseen(generation)
    local unseen = {}
    for _, client in ipairs(call('HKEYS', base .. 'beats')) do
      local seen = call('HGET', base .. 'seen', client)
      if has_inbox(client) and not (seen and tonumber(seen) >= tonumber(generation)) then
        unseen[#unseen + 1] = client
      end
    end
    return unseen
  end

  function operations.seen(generation)
    if has_inbox(me) then
      call('HSET', base .. 'seen', me, generation)
    end
    return 1
  end

  -- Numbers of all queues: {counters, pending, milliseconds that the oldest has left or "", numbers of the clients}
  function operations.numbers()
    local pending, oldest = 0, nil
    for _, channel in ipairs(call('SMEMBERS', base .. 'rq:' .. gen)) do
      local queue = queue_of(channel)
      pending = pending + length_of(channel, queue)
      local head = call('LINDEX', queue, 0)
      if head then
        local expires = parse(head)
        oldest = math.min(oldest or expires, expires)
      else
        call('SREM', base .. 'rq:' .. gen, channel)
      end
    end
    local left = oldest and text(oldest - now) or ''
    return {call('HGETALL', base .. 'tally'), pending, left, call('HVALS', base .. 'stats'), second}
  end

  -- Numbers of one queue: channel. As `numbers`, without the clients.
  function operations.numbers_of(channel)
    local queue = queue_of(channel)
    local pending = length_of(channel, queue)
    local head = call('LINDEX', queue, 0)
    local left = head and text(parse(head) - now) or ''
    return {call('HGETALL', key('tally:', channel)), pending, left, {}, second}
  end

  -- Put a question or an answer into a client's inbox: words, text, client. 1 if it lives.
  function operations.talk(words, payload, client)
    if not has_inbox(client) then
      return 0
    end
    tell(client, words, payload)
    return 1
  end

  -- Forget the members of the caller, which enters them again; and, where the server went back in time,
  -- what waits in queues, since it may have been read before: "all", those with "one" reader, or "".
  -- 1: there is more, ask again.
  function operations.reset(queues_dropped)
    if forget_some(me) then
      return 1
    end
    if queues_dropped == '' then
      return 0
    end
    local registry, kept = base .. 'rq:' .. gen, {}
    for _, channel in ipairs(call('SPOP', registry, SLICE)) do
      if queues_dropped == 'one' and not string.find(channel, '[?!]') then
        kept[#kept + 1] = channel
      else
        local queue = queue_of(channel)
        count(channel, 'gap', call('LLEN', queue))
        call('UNLINK', queue)
        note_head(channel, queue)
      end
    end
    local spared = base .. 'rq.kept:' .. gen
    if #kept > 0 then
      call('SADD', spared, unpack(kept))
      last_longer(spared, TTL)
    end
    if call('EXISTS', registry) == 1 then
      return 1
    end
    if call('EXISTS', spared) == 1 then
      call('RENAME', spared, registry)
    end
    return 0
  end
end
