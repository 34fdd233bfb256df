-- Do what is asked for, and keep the results.

local function make(name)
  local makers = {
    queue = load_queues,
    want = load_queues,
    glance = load_queues,
    confirm = load_queues,
    ['return'] = load_queues,
    back = load_queues,
    add = load_groups,
    discard = load_groups,
    notify = load_groups,
    publish = load_groups,
    owners = load_groups,
    copy = load_groups,
    members = load_groups,
    mine = load_groups,
    newest = load_groups,
  }
  local load = makers[name] or load_house
  load()
end

local results = {}
local at = 9
while ARGV[at] do
  local many = tonumber(ARGV[at + 1])
  if not operations[ARGV[at]] then
    make(ARGV[at])
  end
  local is_done, result = pcall(operations[ARGV[at]], unpack(ARGV, at + 2, at + 1 + many))
  if not is_done then
    result = {'!', type(result) == 'table' and result.err or tostring(result)}
  end
  results[#results + 1] = result
  at = at + 2 + many
end

if counts then
  -- In this second and in the one before it, for the rates.
  local function count_in_second(tally, field, by)
    local had = call('HMGET', tally, field .. 's', field .. 'n')
    if had[1] and tonumber(had[1]) == second then
      call('HINCRBY', tally, field .. 'n', by)
    else
      local before = had[1] and tonumber(had[1]) == second - 1 and had[2] or 0
      call('HSET', tally, field .. 's', second, field .. 'n', by, field .. 'p', before)
    end
  end

  for name, fields in pairs(counts) do
    local tally = name == '' and base .. 'tally' or key('tally:', name)
    for field, by in pairs(fields) do
      call('HINCRBY', tally, field, by)
      if field == 'accepted' or field == 'refused' then
        count_in_second(tally, field, by)
      end
    end
    last_longer(tally, TTL)
  end
end

local reply = {'ok', text(now), changes, results}
if not is_leaving then
  call('HSET', lane, 'number', number, 'results', cmsgpack.pack(reply))
  if not last then
    call('PEXPIRE', lane, TTL) -- later it is renewed with each sign of life
  end
end
return reply
