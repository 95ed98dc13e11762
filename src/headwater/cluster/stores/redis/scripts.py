"""What a store does in Redis that must not be torn: small Lua scripts. Each may be run twice.

Every script names all of its keys, and all keys of a cluster carry one hash tag, so a Redis Cluster runs them too.
"""

PUT_NODE = """
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""KEYS record, index; ARGV node, record, milliseconds."""

REMOVE_NODE = """
redis.call('SREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
"""KEYS record, index; ARGV node."""

FORGET_NODE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('SREM', KEYS[2], ARGV[1])
"""
"""KEYS record, index; ARGV node: takes a node whose record has expired out of the index."""

TAKE = """
local have = redis.call('GET', KEYS[1])
if have and have ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""KEYS lease; ARGV value, milliseconds: 1 when it is ours now."""

RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS lease; ARGV value, milliseconds: 1 when it was ours and lives on."""

GIVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""KEYS lease; ARGV value: 1 when it was ours."""

DEPOSE = """
local have = redis.call('GET', KEYS[1])
if not have or string.sub(have, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""KEYS lease; ARGV node: 1 when that node had it."""

PUT_TABLE = """
local have = redis.call('HMGET', KEYS[1], 'epoch', 'table')
if have[1] and have[1] >= ARGV[1] then
  return (have[1] == ARGV[1] and have[2] == ARGV[2]) and 1 or 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'table', ARGV[2])
return 1
"""
"""KEYS table; ARGV epoch as ``EPOCH_DIGITS`` digits, table. Digits are compared as text: Lua's numbers end at 2^53."""

EPOCH_DIGITS = 20
