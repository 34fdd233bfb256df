-- Queues: messages of channels that no client owns, and who waits for them.

function load_queues()
  if queues then
    return
  end

  local KEPT = 3000 -- how long what has expired stays to be counted
  local MOST_STEPS = 1024 -- past messages that came back before

  local function turn()
    return call('HINCRBY', era_key, 'turn', 1)
  end

  local function family(channel)
    local mark = string.find(channel, '!', 1, true)
    return mark and string.sub(channel, 1, mark)
  end

  local function queue_of(channel)
    return base .. 'q:' .. gen .. ':' .. channel
  end

  local function entry_of(expires, order, payload)
    return text(expires) .. ' ' .. text(order) .. ' ' .. payload
  end

  local function parse(entry)
    local first = string.find(entry, ' ', 1, true)
    local second_space = string.find(entry, ' ', first + 1, true)
    local expires = tonumber(string.sub(entry, 1, first - 1))
    local order = tonumber(string.sub(entry, first + 1, second_space - 1))
    return expires, order, string.sub(entry, second_space + 1)
  end

  local function note_head(channel, queue)
    local name = family(channel)
    if name then
      local head = call('LINDEX', queue, 0)
      local index = base .. 'fam:' .. gen .. ':' .. name
      if head then
        local _, order = parse(head)
        call('ZADD', index, order, channel)
        last_longer(index, EXPIRY + KEPT)
      else
        call('ZREM', index, channel)
      end
    end
  end

  -- Drop what has expired at the head, and return the length.
  local function length_of(channel, queue)
    local length = call('LLEN', queue)
    local dropped = 0
    while length > 0 do
      local expires = parse(call('LINDEX', queue, 0))
      if expires > now then
        break
      end
      call('LPOP', queue)
      length = length - 1
      dropped = dropped + 1
    end
    if dropped > 0 then
      count(channel, 'expired', dropped)
      note_head(channel, queue)
      if length == 0 then
        call('SREM', base .. 'rq:' .. gen, channel)
      end
    end
    return length
  end

  local function pop(channel)
    local queue = queue_of(channel)
    if length_of(channel, queue) == 0 then
      return nil
    end
    local expires, order, payload = parse(call('LPOP', queue))
    note_head(channel, queue)
    if call('EXISTS', queue) == 0 then
      call('SREM', base .. 'rq:' .. gen, channel)
    end
    return expires, order, payload
  end

  local function put(channel, side, expires, order, payload)
    local queue = queue_of(channel)
    if call(side, queue, entry_of(expires, order, payload)) == 1 then
      local registry = base .. 'rq:' .. gen
      call('SADD', registry, channel)
      last_longer(registry, expires - now + KEPT)
    end
    last_longer(queue, expires - now + KEPT)
    if side == 'LPUSH' or call('LLEN', queue) == 1 then
      note_head(channel, queue)
    end
  end

  -- Return the client that has waited longest for `channel`, which wants one message less now.
  local function next_waiter(channel)
    while true do
      local best, who, where
      for _, name in ipairs({channel, family(channel) or nil}) do
        local first = call('ZRANGE', key('w:', name), 0, 0, 'WITHSCORES')
        if first[1] and (not best or tonumber(first[2]) < best) then
          best, who, where = tonumber(first[2]), first[1], name
        end
      end
      if not who then
        return nil
      end
      local wanted = key('want:', who)
      if call('HEXISTS', base .. 'beats', who) == 1 and call('HEXISTS', wanted, where) == 1 then
        if call('HINCRBY', wanted, where, -1) > 0 then
          call('ZADD', key('w:', where), turn(), who)
        else
          call('HDEL', wanted, where)
          call('ZREM', key('w:', where), who)
        end
        return who
      end
      call('ZREM', key('w:', where), who)
      call('HDEL', wanted, where)
    end
  end

  local function label(channel, expires, order)
    return channel .. ' ' .. text(expires) .. ' ' .. text(order) .. ' ' .. gen
  end

  local function give(client, channel, expires, order, payload)
    local stream = key('sub:', client)
    call('XADD', stream, '*', label(channel, expires, order), payload)
    last_longer(stream, TTL)
  end

  -- Give messages that wait in a queue to clients that wait for them.
  local function hand_out(channel)
    local queue = queue_of(channel)
    while length_of(channel, queue) > 0 do
      local who = next_waiter(channel)
      if not who then
        return
      end
      give(who, channel, pop(channel))
    end
  end

  -- Queue a message or give it to who waits; false where the channel is full.
  local function push(channel, capacity, lifetime, payload)
    local expires = now + lifetime
    local length = call('LLEN', queue_of(channel))
    if length == 0 then
      local who = next_waiter(channel)
      if who then
        give(who, channel, expires, turn(), payload)
        count(channel, 'accepted', 1)
        return true
      end
    end
    if length >= capacity and length_of(channel, queue_of(channel)) >= capacity then
      return false
    end
    put(channel, 'RPUSH', expires, turn(), payload)
    count(channel, 'accepted', 1)
    return true
  end

  -- Return the place in a queue for a message of this order, looking around from another place.
  local function place_of(queue, order, at)
    local function stands_behind(index)
      local entry = call('LINDEX', queue, index)
      return entry and select(2, parse(entry)) >= order
    end
    while at > 0 and stands_behind(at - 1) do
      at = at - 1
    end
    while at < MOST_STEPS and call('LINDEX', queue, at) and not stands_behind(at) do
      at = at + 1
    end
    return at
  end

  -- Put messages that were taken to their places again, and give them to who waits.
  local function put_back(channel, entries)
    for number, entry in ipairs(entries) do
      entry[4] = number
    end
    table.sort(entries, function(a, b) return a[2] > b[2] or a[2] == b[2] and a[4] > b[4] end)
    local queue, at = queue_of(channel), 0
    for _, entry in ipairs(entries) do
      local expires, order, payload = unpack(entry)
      if expires > now then
        at = place_of(queue, order, at)
        local following = at > 0 and call('LINDEX', queue, at)
        if following then
          call('LINSERT', queue, 'BEFORE', following, entry_of(expires, order, payload))
          last_longer(queue, expires - now + KEPT)
        else
          put(channel, at == 0 and 'LPUSH' or 'RPUSH', expires, order, payload)
        end
      else
        count(channel, 'expired', 1)
      end
    end
    hand_out(channel)
  end

  -- The newest entry that was given to the caller and is not confirmed, or "".
  local function last_given()
    local found = call('XREVRANGE', key('sub:', me), '+', '-', 'COUNT', 1)
    return found[1] and found[1][1] or ''
  end

  local function parse_label(value)
    local words = {}
    for word in string.gmatch(value, '[^ ]+') do
      words[#words + 1] = word
    end
    return words[1], tonumber(words[2]), tonumber(words[3]), words[4]
  end

  -- Remove messages that a client has in hand; return those of now by channel, in order.
  local function drop_in_hand(client, ids)
    local by_channel = {}
    for _, id in ipairs(ids) do
      local value, payload
      if string.sub(id, 1, 1) == 'h' then
        local held = call('HGET', key('hand:', client), id)
        if held and call('HDEL', key('hand:', client), id) == 1 then
          local line_end = string.find(held, '\n', 1, true)
          value, payload = string.sub(held, 1, line_end - 1), string.sub(held, line_end + 1)
        end
      else
        local found = call('XRANGE', key('sub:', client), id, id)
        if found[1] and call('XDEL', key('sub:', client), id) == 1 then
          value, payload = found[1][2][1], found[1][2][2]
        end
      end
      if value then
        local channel, expires, order, its_gen = parse_label(value)
        if its_gen == gen then
          by_channel[channel] = by_channel[channel] or {}
          table.insert(by_channel[channel], {expires, order, payload})
        end
      end
    end
    return by_channel
  end

  local function return_in_hand(client, ids)
    for channel, entries in pairs(drop_in_hand(client, ids)) do
      put_back(channel, entries)
    end
  end

  queues = {
    push = push,
    return_in_hand = return_in_hand,
    queue_of = queue_of,
    length_of = length_of,
    note_head = note_head,
    parse = parse,
    family = family,
  }

  -- Queue one copy of a group's message for a member that no client owns; a miss is counted.
  function operations.queue(channel, capacity, lifetime, payload)
    if not push(channel, tonumber(capacity), tonumber(lifetime), payload) then
      count(channel, 'full', 1)
    end
    return 1
  end

  -- Take messages that are there, as {id, label, payload}; they are in hand until they are
  -- confirmed. The first ones go after what is on its way in the stream, if that is to be.
  local function take(name, wanted, after_stream)
    local taken = {}
    if call('HEXISTS', base .. 'beats', me) == 0 then
      return taken, 0 -- forgotten: it hears of that with its next beat
    end
    while wanted > 0 do
      local channel = name
      if string.sub(name, -1) == '!' then
        channel = call('ZRANGE', base .. 'fam:' .. gen .. ':' .. name, 0, 0)[1]
      end
      local expires, order, payload
      if channel then
        expires, order, payload = pop(channel)
        if not expires and channel ~= name then
          call('ZREM', base .. 'fam:' .. gen .. ':' .. name, channel) -- it has expired
        end
      end
      if expires and after_stream and call('XLEN', key('sub:', me)) > 0 then
        give(me, channel, expires, order, payload)
        wanted = wanted - 1
      elseif expires then
        local id = 'h' .. text(turn())
        local value = label(channel, expires, order)
        call('HSET', key('hand:', me), id, value .. '\n' .. payload)
        taken[#taken + 1] = {id, value, payload}
        wanted = wanted - 1
      elseif not channel or channel == name then
        break
      end
    end
    if #taken > 0 then
      last_longer(key('hand:', me), TTL)
    end
    return taken, wanted
  end

  -- Want some more messages, or fewer: name, change. Those taken; the others come as they are sent.
  function operations.want(name, change)
    local line, mine = key('w:', name), key('want:', me)
    if tonumber(change) < 0 then
      local left = (tonumber(call('HGET', mine, name)) or 0) + change
      if left > 0 then
        call('HSET', mine, name, left)
      else
        call('HDEL', mine, name)
        call('ZREM', line, me)
      end
      return {}
    end
    local taken, wanted = take(name, tonumber(change), true)
    if wanted > 0 then
      call('HINCRBY', mine, name, wanted)
      last_longer(mine, TTL)
      call('ZADD', line, 'NX', turn(), me)
      last_longer(line, TTL)
    end
    return taken
  end

  -- Take what is there and wait for nothing: name, how many. As want; but nothing where older
  -- messages may be on their way in the stream.
  function operations.glance(name, many)
    if call('XLEN', key('sub:', me)) > 0 then
      return {}
    end
    return take(name, tonumber(many), false)
  end

  -- Take what is in hand for good: ids. For each whether it is still the caller's.
  function operations.confirm(...)
    local confirmed = {}
    for i, id in ipairs({...}) do
      confirmed[i] = next(drop_in_hand(me, {id})) and 1 or 0
    end
    return confirmed
  end

  -- Give back what is in hand: ids. The newest entry that the caller was given before.
  operations['return'] = function(...)
    local last = last_given()
    return_in_hand(me, {...})
    return last
  end

  -- Give back what was confirmed: channel, generation in which it was given or "", then lifetime,
  -- order and payload of each. As `return`.
  function operations.back(channel, its_gen, ...)
    local last = last_given()
    if its_gen == '' or its_gen == gen then -- not flushed
      local entries, given = {}, {...}
      for i = 1, #given, 3 do
        entries[#entries + 1] = {now + tonumber(given[i]), tonumber(given[i + 1]), given[i + 2]}
      end
      put_back(channel, entries)
    end
    return last
  end
end
