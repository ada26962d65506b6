"""The exchange in Redis or Valkey: a task is a message of a stream, which a consumer group hands out."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alcore.errors import UsageError
from alcore_worker.change_timer import ChangeTimer
from alcore_worker.exchange import AwayError, Claim
from alcore_worker.names import (
    FORMAT,
    LARGEST_BLOB,
    DocumentError,
    blob_of,
    is_digest,
    is_run,
    is_task,
    is_worker,
    other_format,
)
from alcore_worker.redis_server import RedisServer, redis

_GROUP = "workers"
_AT_ONCE = 500  # messages in one call
_LARGEST_VALUE = 2**29  # bytes, the server's proto-max-bulk-len unless it was set; it closes the connection over more
_FORGOTTEN_AFTER = 30 * 86400  # seconds after which a driver or worker that says nothing is not listed any more
_ANY_NUMBER = 10**9  # of workers that may be lost
_SET_ASIDE = 1000  # messages at most that are kept of those that are no tasks
_WORKERS, _DRIVERS = "alcore:workers", "alcore:drivers"
_LOGGER = logging.getLogger("alcore.worker")
_TYPES = {"tasks": b"stream", "names": b"hash", "answers": b"hash", "note": b"string"}  # of the keys of a run

# Each script is one transaction. KEYS: stream, names, answers, note. The hash `names` has the message of each task that
# has no answer. Where the stream alone was lost (evicted, deleted), the names go too.
_PUT = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
end
for place = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[place]) == 0 and redis.call('HEXISTS', KEYS[3], ARGV[place]) == 0 then
    local id = redis.call('XADD', KEYS[1], '*', 'task', ARGV[place], 'document', ARGV[place + 1], 'lost', '0')
    redis.call('HSET', KEYS[2], ARGV[place], id)
  end
end
"""
# ARGV: group, how many workers more are lost, how many may be, then messages. Only the message that the task has now is
# put back, and by one caller. Returned are the tasks that are given up, which stay as they are.
_PUT_BACK = """
local given_up = {}
for place = 4, #ARGV do
  local found = redis.call('XRANGE', KEYS[1], ARGV[place], ARGV[place])
  local fields = {}
  for key = 1, #(found[1] and found[1][2] or {}), 2 do fields[found[1][2][key]] = found[1][2][key + 1] end
  local task = fields['task']
  local is_known = task and fields['document'] and redis.call('HGET', KEYS[2], task) == ARGV[place]
  local lost = (tonumber(fields['lost']) or 0) + tonumber(ARGV[2])
  if is_known and lost >= tonumber(ARGV[3]) then
    given_up[#given_up + 1] = task
  else
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[place])
    redis.call('XDEL', KEYS[1], ARGV[place])
    if is_known then
      local id = redis.call('XADD', KEYS[1], '*', 'task', task, 'document', fields['document'], 'lost', lost)
      redis.call('HSET', KEYS[2], task, id)
    end
  end
end
return given_up
"""
# ARGV: group, whether answers stay ("1"), then tasks, which the driver has committed, or which nobody is to work on.
# Returned are the documents that may name arrays.
_REMOVE = """
local documents, ids = {}, {}
local function note(text)
  if string.find(text, '"blob":', 1, true) then documents[#documents + 1] = text end
end
for place = 3, #ARGV do
  local id, answer = redis.call('HGET', KEYS[2], ARGV[place]), redis.call('HGET', KEYS[3], ARGV[place])
  if answer and ARGV[2] ~= '1' then note(answer) end
  if id then
    ids[#ids + 1] = id
    local found = redis.call('XRANGE', KEYS[1], id, id)
    for _, part in ipairs(found[1] and found[1][2] or {}) do note(part) end
  end
end
if #ids > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
  redis.call('XDEL', KEYS[1], unpack(ids))
end
redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
if ARGV[2] ~= '1' then redis.call('HDEL', KEYS[3], unpack(ARGV, 3)) end
return documents
"""
# ARGV: group, then tasks. Those that no worker has claimed are removed; returned are their names and documents.
_WITHDRAW = """
local names, documents = {}, {}
if redis.call('EXISTS', KEYS[1]) == 0 then return {names, documents} end
for place = 2, #ARGV do
  local id = redis.call('HGET', KEYS[2], ARGV[place])
  if id then
    local found = redis.call('XRANGE', KEYS[1], id, id)
    if found[1] and #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 0 then
      names[#names + 1] = ARGV[place]
      for _, part in ipairs(found[1][2]) do
        if string.find(part, '"blob":', 1, true) then documents[#documents + 1] = part end
      end
      redis.call('XDEL', KEYS[1], id)
      redis.call('HDEL', KEYS[2], ARGV[place])
    end
  end
end
return {names, documents}
"""
# ARGV: group, task, answer. The first answer stays, and nobody is to work on the task any more. It is an error where
# the run is gone.
_ANSWER = """
if redis.call('EXISTS', KEYS[4]) == 0 then return redis.error_reply('NORUN the run is not there') end
local is_first = redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[3])
local id = redis.call('HGET', KEYS[2], ARGV[2])
if id then
  redis.call('XACK', KEYS[1], ARGV[1], id)
  redis.call('XDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], ARGV[2])
end
return is_first
"""
# ARGV: group. The server makes a consumer for each worker that claims; those that have nothing are removed.
_FORGET_IDLE = """
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers['err'] then return end
for _, fields in ipairs(consumers) do
  local found = {}
  for place = 1, #fields, 2 do found[fields[place]] = fields[place + 1] end
  if found['pending'] == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], found['name']) end
end
"""
# KEYS: names by time. ARGV: a name, seconds after which others are forgotten. There is room for these few bytes always.
_BEAT = """#!lua flags=allow-oom
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] .. '.' .. string.format('%06d', now[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1] - ARGV[2])
"""


class RedisExchange:
    """An exchange in a Redis or Valkey server.

    ``alcore:{RUN}:tasks`` is a stream with the consumer group ``workers``; ``alcore:{RUN}:names`` has the message of
    each task that has no answer, ``alcore:{RUN}:answers`` the answers, ``alcore:{RUN}:blob:SHA256`` arrays. A message
    is acknowledged and deleted when its answer is there. ``alcore:workers`` has the time when each worker was heard of
    last, ``alcore:drivers`` that of each driver. The messages of a worker whose time doesn't change are put back.
    What is no task is moved to ``alcore:{RUN}:aside``.

    Parameters
    ----------
    where
        ``redis://HOST[:PORT][/DATABASE]``, ``rediss://...`` with TLS, or ``unix:///PATH``. It has no password: that
        is in the environment.

    Raises
    ------
    UsageError
        If it has another form, the server refuses, or what is there is of another format.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._server = RedisServer(where)
        self._client = self._server.client
        texts = (_PUT, _PUT_BACK, _REMOVE, _WITHDRAW, _ANSWER, _FORGET_IDLE, _BEAT)
        self._scripts = {text: self._client.register_script(text) for text in texts}
        self._unchanged = ChangeTimer()
        self._held: set[tuple[str, str]] = set()  # runs and messages of the claims that this worker knows of
        self._lock = threading.Lock()  # of claims: another thread is not to find what is being claimed or given back
        self._server.check()
        try:
            format_found = self._format()
        except AwayError as error:
            raise UsageError(f"workers can't use the server {error}. Mend that, or give another server.") from error
        if format_found != str(FORMAT).encode():
            raise UsageError(other_format(f"the server {where}", (format_found or b"").decode(errors="replace")))

    def _format(self) -> bytes | None:
        """Return the format on the server, which is set where there is none: that needs room."""
        with self._server.away():
            if not self._client.exists("alcore:format"):
                self._client.set("alcore:format", FORMAT, nx=True)
            format_found: bytes | None = self._client.get("alcore:format")
            return format_found

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known, or change its note."""
        self._format()
        with self._server.away():
            # what is there is not written again: a server without memory left takes nothing
            if self._client.get(_key(run, "note")) != note:
                self._client.set(_key(run, "note"), note)
            self._call(_PUT, run, _GROUP)
            self._call(_FORGET_IDLE, run, _GROUP)
            if not self._client.sismember("alcore:runs", run):
                self._client.sadd("alcore:runs", run)

    def attend(self, run: str) -> None:
        """Say that the run's driver lives."""
        with self._server.away():
            self._scripts[_BEAT](keys=[_DRIVERS], args=[run, _FORGOTTEN_AFTER])

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are. `FullError` where there is no room."""
        with self._server.away():
            for some in _slices(list(tasks.items()), _AT_ONCE):
                self._call(_PUT, run, _GROUP, *(part for pair in some for part in pair))

    def known(self, run: str) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""
        with self._server.away():
            kinds = ("names", "answers") if self._client.exists(_key(run, "tasks")) else ("answers",)  # a lost stream
            return {name.decode(errors="replace") for kind in kinds for name in self._client.hkeys(_key(run, kind))}

    def answered(self, run: str) -> list[str]:
        """Return the names of the tasks that have an answer."""
        with self._server.away():
            names = [name.decode(errors="replace") for name in self._client.hkeys(_key(run, "answers"))]
            return sorted(name for name in names if is_task(name))

    def read_answer(self, run: str, name: str) -> bytes:
        """Return an answer; it is empty where it can't be read."""
        with self._server.away():
            return self._client.hget(_key(run, "answers"), name) or b""

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""
        self._remove(run, names, answers_stay=False)

    def give_up(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks that nobody is to work on any more; an answer that is there, or comes late, stays."""
        self._remove(run, names, answers_stay=True)

    def _remove(self, run: str, names: Iterable[str], *, answers_stay: bool) -> None:
        with self._server.away():
            for some in _slices(list(names), _AT_ONCE):
                self._remove_blobs(run, self._call(_REMOVE, run, _GROUP, int(answers_stay), *some))

    def withdraw(self, run: str, names: Iterable[str] | None = None) -> set[str]:
        """Remove tasks that wait, of these names or all: nobody is to begin them any more. Return which they were."""
        gone: set[str] = set()
        with self._server.away():
            wanted = self._client.hkeys(_key(run, "names")) if names is None else list(names)
            for some in _slices(wanted, _AT_ONCE):
                there, documents = self._call(_WITHDRAW, run, _GROUP, *some)
                gone.update(entry.decode(errors="replace") for entry in there)
                self._remove_blobs(run, documents)
        return gone

    def _remove_blobs(self, run: str, documents: Iterable[bytes]) -> None:
        digests = [digest for document in documents if (digest := blob_of(document)) is not None]
        if digests:
            self._client.unlink(*(_key(run, f"blob:{digest}") for digest in digests))

    def take_back(self, run: str, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks wait again whose workers have been silent for so many seconds; return those given up."""
        given_up: list[str] = []
        with self._server.away():
            heard = self._heard_of()
            for some in self._pending(run):
                consumers = {claim["consumer"].decode(errors="replace") for claim in some}
                silent = {consumer for consumer in consumers if self._silence(consumer, heard) > silent_after}
                lost = [claim["message_id"] for claim in some if claim["consumer"].decode(errors="replace") in silent]
                if lost:
                    put_back = self._call(_PUT_BACK, run, _GROUP, 1, most_lost, *lost)
                    given_up += [name for message in put_back if is_task(name := message.decode(errors="replace"))]
        return given_up

    def _pending(self, run: str, worker: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yield which messages are claimed, some at a time."""
        start = "-"
        while True:
            try:
                some = self._client.xpending_range(_key(run, "tasks"), _GROUP, start, "+", _AT_ONCE, worker)
            except redis.ResponseError as error:
                if str(error).startswith("NOGROUP"):  # the server has lost it, and the driver makes it again
                    return
                raise
            if not some:
                return
            yield some
            start = "(" + some[-1]["message_id"].decode()

    def _heard_of(self) -> dict[str, float]:
        """Return when each worker was heard of, by the clock of the server."""
        times = self._client.zrange(_WORKERS, 0, -1, withscores=True)
        return {name.decode(errors="replace"): when for name, when in times}

    def _silence(self, worker: str, heard: Mapping[str, float]) -> float:
        """Return for how many seconds of this process a worker has said nothing."""
        return self._unchanged.unchanged(worker, heard.get(worker))

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""
        with self._server.away():
            heard = self._heard_of()
        return sum(is_worker(worker) and self._silence(worker, heard) <= silent_after for worker in heard)

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""
        with self._server.away():
            names = [name.decode(errors="replace") for name in self._client.smembers("alcore:runs")]
        return sorted(name for name in names if is_run(name))

    def fault_of(self, run: str) -> str | None:
        """Return why a run that is known can't be served, though the server can be reached; None where it can."""
        with self._server.away(), self._client.pipeline(transaction=False) as calls:
            for kind in _TYPES:
                calls.type(_key(run, kind))
            try:
                types = dict(zip(_TYPES, calls.execute(), strict=True))
            except redis.exceptions.NoPermissionError:  # it may not ask, and may be allowed all else
                return None
        wrong = [kind for kind, type_ in types.items() if type_ not in (b"none", _TYPES[kind])]
        if not wrong:
            return None
        is_there, expected = types[wrong[0]].decode(), _TYPES[wrong[0]].decode()
        return f"{_key(run, wrong[0])} is a {is_there} and not a {expected}, so that something else has written it"

    def is_attended(self, run: str, within: float) -> bool:
        """Return whether the run's driver was heard of in so many seconds, of the server's clock."""
        with self._server.away():
            heard = self._client.zscore(_DRIVERS, run)
            seconds, microseconds = self._client.time()
            return heard is not None and seconds + microseconds / 1e6 - heard < within

    def note(self, run: str) -> bytes:
        """Return what was noted about a run."""
        with self._server.away():
            return _bytes(self._client.get(_key(run, "note")), 1000, "the note of the run is not there")

    def waiting(self, run: str) -> int:
        """Return about how many tasks wait."""
        with self._server.away():
            total = int(self._client.xlen(_key(run, "tasks")))
            return total - int(self._client.xpending(_key(run, "tasks"), _GROUP)["pending"]) if total else 0

    def claim(self, run: str, worker: str) -> Claim | None:
        """Take the oldest task that waits; None where none does."""
        with self._lock, self._server.away():
            claim = self._unknown_claim(run, worker)
            try:
                return claim or self._new_claim(run, worker)
            except (redis.ConnectionError, redis.TimeoutError):  # what was handed out may not have arrived
                return self._unknown_claim(run, worker) or self._new_claim(run, worker)

    def _unknown_claim(self, run: str, worker: str) -> Claim | None:
        """Return a claim that the server takes for this worker's, and of which that doesn't know."""
        for message in [claim["message_id"] for some in self._pending(run, worker) for claim in some]:
            if (run, message.decode()) in self._held:
                continue
            entries = self._client.xrange(_key(run, "tasks"), message, message)
            if (claim := self._begin_claim(run, message, entries[0][1] if entries else None)) is not None:
                return claim
        return None

    def _new_claim(self, run: str, worker: str) -> Claim | None:
        """Have the server hand out messages until it has none, or this is a task that nobody has answered."""
        while True:
            try:
                replies = self._server.once.xreadgroup(_GROUP, worker, {_key(run, "tasks"): ">"}, count=1)
            except redis.ResponseError as error:
                if str(error).startswith("NOGROUP"):  # the server has lost it, and the driver makes it again
                    return None
                raise
            messages = _messages(replies)
            if not messages:
                return None
            if (claim := self._begin_claim(run, *messages[0])) is not None:
                return claim

    def _begin_claim(self, run: str, message: bytes, fields: Mapping[bytes, bytes] | None) -> Claim | None:
        """Return the claim of a message; None where it is no task, or one that was removed."""
        name = (fields or {}).get(b"task", b"").decode(errors="replace")
        if fields and not is_task(name):
            self._set_aside(run, message, fields)
            return None
        if not fields or self._client.hget(_key(run, "names"), name) != message:
            self._call(_PUT_BACK, run, _GROUP, 0, _ANY_NUMBER, message)  # that acknowledges it
            return None
        self._held.add((run, message.decode()))
        return Claim(name, message.decode(), fields.get(b"document", b""))

    def _set_aside(self, run: str, message: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Move a message that is no task out of the way."""
        _LOGGER.warning("the message %.40s of the run %s is no task; it was set aside", message.decode(), run)
        with self._client.pipeline() as calls:
            calls.xadd(_key(run, "aside"), dict(fields), maxlen=_SET_ASIDE)
            calls.xack(_key(run, "tasks"), _GROUP, message)
            calls.xdel(_key(run, "tasks"), message)
            calls.execute()

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims; also where the server has no memory left."""
        if not is_worker(worker):
            raise ValueError(f"{worker!r} can't be the name of a worker")
        with self._server.away():
            self._scripts[_BEAT](keys=[_WORKERS], args=[worker, _FORGOTTEN_AFTER])

    def answer(self, run: str, claim: Claim, document: bytes) -> None:
        """Answer a task; an answer that is there already stays. It is as durable as the server makes it."""
        with self._server.away():
            is_first = self._call(_ANSWER, run, _GROUP, claim.name, document)
            self._remove_blobs(run, [claim.document])  # nobody needs these again
            if not is_first and blob_of(document) is not None and self.read_answer(run, claim.name) != document:
                self._remove_blobs(run, [document])
        self._held.discard((run, claim.token))

    def give_back(self, run: str, claim: Claim) -> None:
        """Let a claimed task wait again."""
        with self._lock, self._server.away():
            self._held.discard((run, claim.token))  # first: if this fails, it is claimed again
            self._call(_PUT_BACK, run, _GROUP, 0, _ANY_NUMBER, claim.token)

    def leave(self, worker: str) -> None:
        """Say that a worker has ended; what it has claimed waits again."""
        with self._server.away():
            for run in [run for run in self.runs() if self.fault_of(run) is None]:
                for some in self._pending(run, worker):
                    self._call(_PUT_BACK, run, _GROUP, 0, _ANY_NUMBER, *(claim["message_id"] for claim in some))
            self._client.zrem(_WORKERS, worker)

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""
        if len(content) > _LARGEST_VALUE:
            raise DocumentError(f"its arrays have {len(content)} bytes; {_LARGEST_VALUE} is the most through Redis")
        digest = hashlib.sha256(content).hexdigest()
        with self._server.away():
            self._client.set(_key(run, f"blob:{digest}"), content)
        return digest

    def get_blob(self, run: str, digest: str) -> bytes:
        """Return the arrays of this SHA-256; `DocumentError` if they are not there."""
        if not is_digest(digest):
            raise DocumentError(f"{digest!r:.80} is not a SHA-256")
        with self._server.away():
            blob = self._client.get(_key(run, f"blob:{digest}"))
        return _bytes(blob, LARGEST_BLOB, f"its arrays {digest[:12]} are not there")

    def _call(self, script: str, run: str, *arguments: Any) -> Any:
        keys = [_key(run, kind) for kind in ("tasks", "names", "answers", "note")]
        return self._scripts[script](keys=keys, args=arguments)


def _key(run: str, kind: str) -> str:
    if not is_run(run):
        raise DocumentError(f"{run!r:.80} can't be the name of a run")
    return f"alcore:{{{run}}}:{kind}"


def _messages(replies: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the messages of a stream in a reply, which is a list or a mapping, by the version of the protocol."""
    if not replies:
        return []
    if isinstance(replies, Mapping):
        return [message for some in replies.values() for message in (some[0] if isinstance(some[0], list) else some)]
    return [message for _, some in replies for message in some]


def _bytes(value: Any, most: int, missing: str) -> bytes:
    if not isinstance(value, bytes):
        raise DocumentError(missing)
    if len(value) > most:
        raise DocumentError(f"it has {len(value)} bytes; {most} is the most")
    return value


def _slices(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
