"""The scripts that write to the store in Redis, and the keys that they work on.

All keys of a bucket begin with ``{<prefix>_<bucket>}``, so that one node of a Cluster has them:

    :documents  hash: name → revision, a space, the document
    :revisions  hash: kind, what is before the first dot of a name → revision of its last write or
                deletion; the empty field: that of the whole bucket
    :changes    stream: the last changes, without documents; their ids are ``<revision>-0``
    :deleted    sorted set: names that were deleted within a week, by the second

A revision is the server's time in microseconds, or one more than the last if that is not less. So
one that was given to a write that is lost, as a failover can do, is not given again. Each change
tells the revision before its own: a reader that has another has missed something.

A script that fails does not undo what it has written. These first check, then record the change,
then write: a reader of a change that was not written finds what was there before.
"""

from hashlib import sha1
from typing import NamedTuple

from gateway.store.interface import MARKER_S, MAX_SHARED_NAMES
from gateway.store.names import account_token

CONFLICT = 0
"""What a script returns, in place of the new revision, if the stored revision is another."""
FULL = -1
"""What `CLAIM` returns if the account has as many claims as it may."""
_KEPT_CHANGES = 1000
"""Changes that a reader may be behind before it must read the whole bucket again."""
_FORGOTTEN_AT_ONCE = 32

_REVISION = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function revision_of(key, field)
    local stored = redis.call('HGET', key, field)
    return stored and tonumber(string.match(stored, '^%d+')) or 0
end
local function text(number)
    return string.format('%.0f', number)
end
"""
"""Numbers of microseconds are exact in Lua, but not as the texts that it makes of them."""

_CHANGE = f"""{_REVISION}
local documents, revisions, changes, deleted = unpack(KEYS)
local name = ARGV[1]
if ARGV[2] ~= '' and revision_of(documents, name) ~= tonumber(ARGV[2]) then
    return {CONFLICT}
end
local last = revision_of(revisions, '')
local revision = math.max(now, last + 1)
local id = text(revision)
redis.call(
    'XADD', changes, 'MAXLEN', '~', {_KEPT_CHANGES}, id .. '-0', 'name', name, 'after', text(last)
)
redis.call('HSET', revisions, '', id)
local kind = string.match(name, '^([^.]+)%.')
if kind then
    redis.call('HSET', revisions, kind, id)
end
"""

_WRITE = f"""#!lua
{_CHANGE}
redis.call('HSET', documents, name, id .. ' ' .. ARGV[3])
redis.call('ZREM', deleted, name)
return revision
"""

_DELETE = f"""#!lua flags=allow-oom
{_CHANGE}
redis.call('HDEL', documents, name)
redis.call('ZADD', deleted, time[1], name)
redis.call('ZREMRANGEBYSCORE', deleted, '-inf', tonumber(time[1]) - {MARKER_S})
return revision
"""

_REPLACE = f"""#!lua
{_REVISION}
local documents, ages = unpack(KEYS)
local name, document, max_age_s = ARGV[1], ARGV[3], tonumber(ARGV[4])
local stored = revision_of(documents, name)
if stored ~= tonumber(ARGV[2]) then
    return {CONFLICT}
end
local revision = math.max(now, stored + 1)
redis.call('HSET', documents, name, text(revision) .. ' ' .. document)
redis.call('ZADD', ages, revision, name)
local too_old = '(' .. text(now - max_age_s * 1000000)
local forgotten = redis.call(
    'ZRANGEBYSCORE', ages, '-inf', too_old, 'LIMIT', 0, {_FORGOTTEN_AT_ONCE}
)
if #forgotten == 0 and redis.call('ZCARD', ages) > {MAX_SHARED_NAMES} then
    forgotten = redis.call('ZRANGE', ages, 0, 0)
end
if #forgotten > 0 then
    redis.call('HDEL', documents, unpack(forgotten))
    redis.call('ZREM', ages, unpack(forgotten))
end
return revision
"""


_CLAIM = f"""#!lua
{_REVISION}
local claim, ages = unpack(KEYS)
local max_age_s, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', claim) == 1 then
    return {CONFLICT}
end
local too_old = '(' .. text(now - max_age_s * 1000000)
local expired = redis.call('ZRANGEBYSCORE', ages, '-inf', too_old, 'LIMIT', 0, {_FORGOTTEN_AT_ONCE})
if #expired > 0 then
    redis.call('ZREM', ages, unpack(expired))
end
if redis.call('ZCARD', ages) >= limit then
    return {FULL}
end
local last = redis.call('ZRANGE', ages, -1, -1, 'WITHSCORES')[2]
local revision = math.max(now, (tonumber(last) or 0) + 1)
redis.call('ZADD', ages, revision, claim)
redis.call('PEXPIRE', ages, max_age_s * 1000)
redis.call('SET', claim, text(revision) .. ' ' .. ARGV[1], 'PX', max_age_s * 1000)
return revision
"""

_RELEASE = f"""#!lua flags=allow-oom
{_REVISION}
local claim, ages = unpack(KEYS)
local stored = redis.call('GET', claim)
if not stored or string.match(stored, '^%d+') ~= ARGV[1] then
    return {CONFLICT}
end
redis.call('ZREM', ages, claim)
redis.call('DEL', claim)
return 1
"""


class StoreScript(NamedTuple):
    """A script and its digest, by which a server that knows it runs it."""

    source: str
    digest: str


def _script(source: str) -> StoreScript:
    return StoreScript(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


WRITE = _script(_WRITE)
"""Arguments: name, revision to replace or nothing, document. Returns the new revision."""
DELETE = _script(_DELETE)
"""Arguments: name, revision to delete or nothing. Returns the revision of the deletion.

It runs when the memory is full: else nothing could be deleted.
"""
REPLACE = _script(_REPLACE)
"""Arguments: name, revision to replace, document, seconds to keep it. Returns the new revision."""


CLAIM = _script(_CLAIM)
"""Arguments: document, whole seconds to keep it, claims of the account. Returns the revision."""
RELEASE = _script(_RELEASE)
"""Argument: revision to delete. Returns 1; runs when the memory is full, as `DELETE`."""


class BucketKeys(NamedTuple):
    """The keys of one bucket, in the order in which scripts take them."""

    documents: str
    revisions: str
    changes: str
    deleted: str

    @classmethod
    def of(cls, prefix: str, bucket: str) -> "BucketKeys":
        tag = f"{{{prefix}_{bucket}}}"
        return cls(*(f"{tag}:{field}" for field in cls._fields))


class NumberKeys(NamedTuple):
    """The keys of the shared numbers, in the order in which scripts take them.

    ``ages`` is a sorted set: names by the revisions of their documents.
    """

    documents: str
    ages: str

    @classmethod
    def of(cls, prefix: str) -> "NumberKeys":
        tag = f"{{{prefix}_rates}}"
        return cls(*(f"{tag}:{field}" for field in cls._fields))


class ClaimKeys(NamedTuple):
    """The keys of one claim, in the order in which scripts take them.

    ``claim`` is a text that expires: revision, a space, the document. ``ages`` is a sorted set: the
    claims of the account by their revisions.
    """

    claim: str
    ages: str

    @classmethod
    def of(cls, prefix: str, account: str, name: str) -> "ClaimKeys":
        tag = f"{{{prefix}_claims}}:{account_token(account)}"
        return cls(f"{tag}:claim:{name}", f"{tag}:ages")


def split(stored: bytes) -> tuple[bytes, int]:
    """Return document and revision of a stored value."""
    revision, _, document = stored.partition(b" ")
    return document, int(revision)
