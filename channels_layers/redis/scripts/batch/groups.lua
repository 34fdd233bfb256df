-- Groups: members, and the clients that own them.

local groups

local function load_groups()
  if groups then
    return
  end

  local OWNED = 9000000000000000 -- later than any time

  local function group_keys(group)
    return base .. 'g:' .. gen .. ':' .. group, base .. 'go:' .. gen .. ':' .. group
  end

  local function forget_member(group, channel, owner)
    local members, owners = group_keys(group)
    if call('HINCRBY', owners, owner, -1) <= 0 then
      call('HDEL', owners, owner)
    end
    call('SREM', base .. 'm:' .. gen .. ':' .. owner, group .. ' ' .. channel)
    if call('EXISTS', members) == 0 then
      call('SREM', base .. 'rg:' .. gen, group)
    end
  end

  local function owner_in(channel)
    return string.match(channel, '([^.]*)!') or ''
  end

  -- Forget some members of a client; whether there are more.
  local function forget_some(client)
    local mine = base .. 'm:' .. gen .. ':' .. client
    for _, member in ipairs(call('SPOP', mine, SLICE)) do
      local space = string.find(member, ' ', 1, true)
      local group, channel = string.sub(member, 1, space - 1), string.sub(member, space + 1)
      call('ZREM', (group_keys(group)), channel)
      forget_member(group, channel, client)
    end
    return call('EXISTS', mine) == 1
  end

  groups = {group_keys = group_keys, forget_some = forget_some}

  -- Add a member: group, channel, its owner or "", lifetime, 1 where the owner's inbox is here.
  -- {version, 1 where it is that owner's}
  function operations.add(group, channel, owner, lifetime, is_here)
    if is_here == '1' and owner ~= me and not has_inbox(owner) then
      owner = ''
    end
    local members, owners = group_keys(group)
    local before = tonumber(call('ZSCORE', members, channel) or 0)
    if owner ~= '' then
      call('ZADD', members, OWNED, channel)
      if before < OWNED then
        call('HINCRBY', owners, owner, 1)
        call('SADD', base .. 'm:' .. gen .. ':' .. owner, group .. ' ' .. channel)
      end
      last_longer(members, TTL)
      last_longer(owners, TTL)
      last_longer(base .. 'm:' .. gen .. ':' .. owner, TTL)
    else
      call('ZADD', members, text(now + tonumber(lifetime)), channel)
      if before >= OWNED then
        forget_member(group, channel, owner_in(channel))
      end
      last_longer(members, tonumber(lifetime))
    end
    local registry = base .. 'rg:' .. gen
    call('SADD', registry, group)
    last_longer(registry, call('PTTL', members))
    local version = call('HINCRBY', era_key, 'version', 1)
    if is_here == '1' and owner ~= '' and owner ~= me then
      tell(owner, 'A ' .. channel .. ' ' .. text(version), group)
    end
    return {version, owner == '' and 0 or 1}
  end

  -- Discard a member: group, channel, 1 where the inbox of its owner is here. {version}
  function operations.discard(group, channel, is_here)
    local members = group_keys(group)
    local before = call('ZSCORE', members, channel)
    call('ZREM', members, channel)
    local owner = owner_in(channel)
    if before and tonumber(before) >= OWNED then
      forget_member(group, channel, owner)
    end
    local version = call('HINCRBY', era_key, 'version', 1)
    if is_here == '1' and owner ~= me and has_inbox(owner) then
      tell(owner, 'X ' .. channel .. ' ' .. text(version), group)
    end
    return {version}
  end

  -- Tell the owner of a channel, whose inbox is here, of a change elsewhere: A or X, channel,
  -- version, group, owner.
  function operations.notify(what, channel, version, group, owner)
    if has_inbox(owner) then
      tell(owner, what .. ' ' .. channel .. ' ' .. version, group)
    end
    return 1
  end

  local function last_entry()
    local found = call('XREVRANGE', key('in:', me), '+', '-', 'COUNT', 1)
    return found[1] and found[1][1] or ''
  end

  -- Put a copy of a group's message into the inbox of a client; false where that is not here.
  local function copy(client, words, payload)
    local id = tell(client, words, payload)
    if id and not has_bytes(client, id, #payload) then
      count('', 'full', 1)
    end
    return id
  end

  -- Send to a group: group, lifetime, payload. Clients whose inbox is here get their copy.
  -- {1 if the caller has members, its newest entry, other clients, channels of no client}
  function operations.publish(group, lifetime, payload)
    local members, owners = group_keys(group)
    call('ZREMRANGEBYSCORE', members, '-inf', text(now))
    local is_mine, others = 0, {}
    local words = 'G ' .. group .. ' ' .. text(now + tonumber(lifetime))
    for _, owner in ipairs(call('HKEYS', owners)) do
      if owner == me then
        is_mine = 1
      elseif not copy(owner, words, payload) then
        others[#others + 1] = owner
      end
    end
    local unowned = call('ZRANGEBYSCORE', members, '(' .. text(now), '(' .. text(OWNED))
    return {is_mine, last_entry(), others, unowned}
  end

  -- The same for clients that another shard knows to have members: group, lifetime, payload, clients.
  -- {the caller's newest entry}
  function operations.copy(group, lifetime, payload, ...)
    local words = 'G ' .. group .. ' ' .. text(now + tonumber(lifetime))
    for _, owner in ipairs({...}) do
      if owner ~= me then
        copy(owner, words, payload)
      end
    end
    return {last_entry()}
  end

  function operations.members(group)
    local members = group_keys(group)
    return call('ZRANGEBYSCORE', members, '(' .. text(now), '+inf')
  end
end
