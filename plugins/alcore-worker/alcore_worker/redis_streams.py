"""The exchange in Redis or Valkey: a task is a message of a stream, which a consumer group hands out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alcore.errors import UsageError
from alcore_worker.documents import (
    FORMAT,
    LARGEST_BLOB,
    LARGEST_DOCUMENT,
    DocumentError,
    blob_of,
    is_digest,
    is_run,
    is_task,
    is_worker,
    other_format,
)
from alcore_worker.exchange import AwayError, Claim

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise UsageError(
        "work through Redis needs the package redis; `pip install 'alcore-worker[redis]'` brings it, or give a folder."
    ) from error

PASSWORD = "ALCORE_REDIS_PASSWORD"
"""The variable of the environment that holds the password, which is written nowhere."""
_GROUP = "workers"
_DRIVER = "driver"
_AT_ONCE = 500  # messages in one call
_LARGEST_VALUE = 2**29  # bytes, the server's proto-max-bulk-len unless it was set; it closes the connection over more
_OPTIONS = {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_NUMBER = re.compile(rb"[0-9]{1,6}")

# Each script is one transaction. KEYS: stream, names, answers. The hash `names` has the message of each known task.
# Where the stream alone was lost (evicted, deleted), the names in it go too, but for those that have an answer.
_PUT = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
    if redis.call('HEXISTS', KEYS[3], name) == 0 then redis.call('HDEL', KEYS[2], name) end
  end
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
end
for place = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[place]) == 0 then
    local id = redis.call('XADD', KEYS[1], '*', 'task', ARGV[place], 'document', ARGV[place + 1], 'lost', '0')
    redis.call('HSET', KEYS[2], ARGV[place], id)
  end
end
"""
# ARGV: group, task, message, document, lost. Only the message that the task has now is put back, and by one caller.
_PUT_BACK = """
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] or redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return 0 end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
local id = redis.call('XADD', KEYS[1], '*', 'task', ARGV[2], 'document', ARGV[4], 'lost', ARGV[5])
redis.call('HSET', KEYS[2], ARGV[2], id)
return 1
"""
# ARGV: group, then tasks, which the driver has committed.
_REMOVE = """
for place = 2, #ARGV do
  local id = redis.call('HGET', KEYS[2], ARGV[place])
  if id then
    if redis.call('EXISTS', KEYS[1]) == 1 then
      redis.call('XACK', KEYS[1], ARGV[1], id)
      redis.call('XDEL', KEYS[1], id)
    end
    redis.call('HDEL', KEYS[2], ARGV[place])
  end
  redis.call('HDEL', KEYS[3], ARGV[place])
end
"""
# ARGV: group, worker, messages. Those that are still the worker's are handed to it again, so that they are not idle.
_BEAT = """
for place = 3, #ARGV do
  local mine = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[place], ARGV[place], 1, ARGV[2])
  if #mine > 0 then redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[place], 'JUSTID') end
end
"""
# ARGV: task, answer. A task that was removed takes no answer, and the first answer stays.
_ANSWER = """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
return redis.call('HSETNX', KEYS[3], ARGV[1], ARGV[2])
"""


class RedisExchange:
    """An exchange in a Redis or Valkey server.

    ``alcore:{RUN}:tasks`` is a stream with the consumer group ``workers``; ``alcore:{RUN}:names`` has the message of
    each task that is known, ``alcore:{RUN}:answers`` the answers, ``alcore:{RUN}:blob:SHA256`` arrays. A message is
    acknowledged when the driver has committed its answer. A worker that lives keeps its messages from being idle; those
    that are idle for long are taken over (XAUTOCLAIM), and put back.

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
        parts = urllib.parse.urlsplit(where)
        if parts.password is not None or "password=" in parts.query:
            raise UsageError(  # it is not repeated here
                "the address of the Redis server has a password, which would be written to experiment.toml; take it "
                f"out, and set the variable {PASSWORD} of the environment."
            )
        if unknown := sorted(set(urllib.parse.parse_qs(parts.query, keep_blank_values=True)) - _OPTIONS):
            raise UsageError(f"the address {where!r} has {unknown[0]!r}; it may have {', '.join(sorted(_OPTIONS))}.")
        try:
            self._client: Any = redis.Redis.from_url(
                where,
                password=os.environ.get(PASSWORD) or None,
                socket_connect_timeout=5,
                socket_timeout=30,
                health_check_interval=15,
                retry=Retry(NoBackoff(), 1),  # a connection that the server has closed is opened again
            )
        except ValueError as error:
            raise UsageError(
                f"{where!r} is not the address of a Redis server: {error}. Write redis://HOST, "
                "redis://HOST:PORT/DATABASE, rediss://HOST for TLS, or unix:///PATH."
            ) from error
        self._scripts = {
            text: self._client.register_script(text) for text in (_PUT, _PUT_BACK, _REMOVE, _BEAT, _ANSWER)
        }
        self._held: set[tuple[str, str]] = set()  # runs and messages that this worker works on
        try:
            self._client.set("alcore:format", FORMAT, nx=True)
            found: Any = self._client.get("alcore:format")
        except redis.RedisError as error:
            raise UsageError(
                f"there is no Redis server for workers at {where}: {_text_of(error)}. Start one, or mend the address; "
                f"its password belongs in the variable {PASSWORD} of the environment."
            ) from error
        if found != str(FORMAT).encode():
            raise UsageError(other_format(f"the server {where}", (found or b"").decode(errors="replace")))

    # -- the driver's side -----------------------------------------------------------------------------

    def begin(self, run: str, note: bytes) -> None:
        """Make a run known."""
        with _away(self.where):
            self._client.set("alcore:format", FORMAT, nx=True)
            self._client.set(_key(run, "note"), note)
            self._call(_PUT, run, _GROUP)
            self._client.sadd("alcore:runs", run)

    def put(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """Add tasks, by name; those that are known are left as they are."""
        with _away(self.where):
            for some in _slices(list(tasks.items()), _AT_ONCE):
                self._call(_PUT, run, _GROUP, *(part for pair in some for part in pair))

    def known(self, run: str) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""
        with _away(self.where):
            kind = "names" if self._client.exists(_key(run, "tasks")) else "answers"  # a lost stream has no tasks
            return {one.decode(errors="replace") for one in self._client.hkeys(_key(run, kind))}

    def answered(self, run: str) -> list[str]:
        """Return the names of the tasks that have an answer."""
        with _away(self.where):
            names = [one.decode(errors="replace") for one in self._client.hkeys(_key(run, "answers"))]
            return sorted(one for one in names if is_task(one))

    def read_answer(self, run: str, name: str) -> bytes:
        """Return an answer."""
        with _away(self.where):
            found = self._client.hget(_key(run, "answers"), name)
        return _bytes(found, LARGEST_DOCUMENT, "it was removed")

    def remove(self, run: str, names: Iterable[str]) -> None:
        """Remove tasks with their answers: the driver has committed these."""
        with _away(self.where):
            for some in _slices(list(names), _AT_ONCE):
                documents = self._client.hmget(_key(run, "answers"), some)
                ids = self._client.hmget(_key(run, "names"), some)
                documents += [self._document(run, one) for one in ids if one is not None]
                self._remove_blobs(run, documents)
                self._call(_REMOVE, run, _GROUP, *some)

    def _document(self, run: str, message: bytes) -> bytes | None:
        """Return the task in a message; None where it is not there."""
        for _, fields in self._client.xrange(_key(run, "tasks"), message, message):
            return _field(fields, b"document")
        return None

    def _remove_blobs(self, run: str, documents: Iterable[bytes | None]) -> None:
        digests = [digest for one in documents if one is not None and (digest := blob_of(one)) is not None]
        if digests:
            self._client.unlink(*(_key(run, f"blob:{one}") for one in digests))

    def take_back(self, run: str, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks wait again whose workers have been silent for so many seconds; return those given up."""
        given_up: list[str] = []
        with _away(self.where):
            start: Any = "0-0"
            while True:
                start, messages, *_ = self._client.xautoclaim(
                    _key(run, "tasks"), _GROUP, _DRIVER, int(1000 * silent_after), start, _AT_ONCE
                )
                for message, fields in messages:
                    name, lost = _field(fields, b"task").decode(errors="replace"), _field(fields, b"lost")
                    count = int(lost) + 1 if _NUMBER.fullmatch(lost) else most_lost
                    if count < most_lost:
                        self._call(_PUT_BACK, run, _GROUP, name, message, _field(fields, b"document"), count)
                    elif is_task(name) and not self._client.hexists(_key(run, "answers"), name):
                        given_up.append(name)
                if start in (b"0-0", "0-0"):
                    return given_up

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""
        with _away(self.where):
            seconds, _ = self._client.time()
            return int(self._client.zcount("alcore:workers", seconds - silent_after, "+inf"))

    # -- the worker's side -----------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the runs that are known."""
        with _away(self.where):
            names = [one.decode(errors="replace") for one in self._client.smembers("alcore:runs")]
        return sorted(one for one in names if is_run(one))

    def note(self, run: str) -> bytes:
        """Return what was noted about a run."""
        with _away(self.where):
            return _bytes(self._client.get(_key(run, "note")), 1000, "the note of the run is not there")

    def waiting(self, run: str) -> int:
        """Return about how many tasks wait."""
        with _away(self.where):
            total = int(self._client.xlen(_key(run, "tasks")))
            return total - int(self._client.xpending(_key(run, "tasks"), _GROUP)["pending"]) if total else 0

    def claim(self, run: str, worker: str, most: int) -> list[Claim]:
        """Take up to so many tasks, the oldest first."""
        found = []
        with _away(self.where):
            try:
                replies: Any = self._client.xreadgroup(_GROUP, worker, {_key(run, "tasks"): ">"}, count=most)
            except redis.ResponseError as error:
                if str(error).startswith("NOGROUP"):  # the server has lost it, and the driver makes it again
                    return []
                raise
            for message, fields in _messages(replies):
                name, document = _field(fields, b"task").decode(errors="replace"), _field(fields, b"document")
                if is_task(name) and not self._client.hexists(_key(run, "answers"), name):
                    token = f"{message.decode()} {_field(fields, b'lost').decode(errors='replace')}"
                    self._held.add((run, message.decode()))
                    found.append(Claim(name, token, document))
        return found

    def beat(self, worker: str) -> None:
        """Say that a worker lives, and with it all of its claims."""
        if not is_worker(worker):
            raise ValueError(f"{worker!r} can't be the name of a worker")
        with _away(self.where):
            seconds, _ = self._client.time()
            self._client.zadd("alcore:workers", {worker: seconds})
            self._client.zremrangebyscore("alcore:workers", "-inf", seconds - 86400)
            held = list(self._held)  # and no others: a claim of which the reply was lost is to be taken back
            for run in {one for one, _ in held}:
                with contextlib.suppress(redis.ResponseError):  # NOGROUP
                    self._call(_BEAT, run, _GROUP, worker, *(message for one, message in held if one == run))

    def answer(self, run: str, claim: Claim, document: bytes) -> None:
        """Answer a task; an answer that is there already stays. It is as durable as the server makes it."""
        with _away(self.where):
            if self._call(_ANSWER, run, claim.name, document):
                self._remove_blobs(run, [claim.document])
            elif self._client.hget(_key(run, "answers"), claim.name) != document:
                self._remove_blobs(run, [document])
        self._held.discard((run, claim.token.partition(" ")[0]))

    def give_back(self, run: str, claim: Claim) -> None:
        """Let a claimed task wait again."""
        message, _, lost = claim.token.partition(" ")
        with _away(self.where):
            self._call(_PUT_BACK, run, _GROUP, claim.name, message, claim.document, lost)
        self._held.discard((run, message))

    def leave(self, worker: str) -> None:
        """Say that a worker has ended."""
        with _away(self.where):
            self._client.zrem("alcore:workers", worker)

    # -- both ------------------------------------------------------------------------------------------

    def put_blob(self, run: str, content: bytes) -> str:
        """Store the arrays of a document; return their SHA-256."""
        if len(content) > _LARGEST_VALUE:
            raise DocumentError(f"its arrays have {len(content)} bytes; {_LARGEST_VALUE} is the most through Redis")
        digest = hashlib.sha256(content).hexdigest()
        with _away(self.where):
            self._client.set(_key(run, f"blob:{digest}"), content)
        return digest

    def get_blob(self, run: str, digest: str) -> bytes:
        """Return the arrays of this SHA-256; `DocumentError` if they are not there."""
        if not is_digest(digest):
            raise DocumentError(f"{digest!r:.80} is not a SHA-256")
        with _away(self.where):
            found = self._client.get(_key(run, f"blob:{digest}"))
        return _bytes(found, LARGEST_BLOB, f"its arrays {digest[:12]} are not there")

    def _call(self, script: str, run: str, *arguments: Any) -> Any:
        keys = [_key(run, "tasks"), _key(run, "names"), _key(run, "answers")]
        return self._scripts[script](keys=keys, args=arguments)


def _key(run: str, kind: str) -> str:
    if not is_run(run):
        raise DocumentError(f"{run!r:.80} can't be the name of a run")
    return f"alcore:{{{run}}}:{kind}"


def _field(fields: Mapping[bytes, bytes] | None, name: bytes) -> bytes:
    return (fields or {}).get(name, b"")


def _messages(replies: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the messages of a stream in a reply, which is a list or a mapping, by the version of the protocol."""
    if not replies:
        return []
    if isinstance(replies, Mapping):
        return [message for some in replies.values() for message in (some[0] if isinstance(some[0], list) else some)]
    return [message for _, some in replies for message in some]


def _bytes(found: Any, most: int, missing: str) -> bytes:
    if not isinstance(found, bytes):
        raise DocumentError(missing)
    if len(found) > most:
        raise DocumentError(f"it has {len(found)} bytes; {most} is the most")
    return found


def _slices(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


@contextlib.contextmanager
def _away(where: str) -> Iterator[None]:
    """Raise `AwayError` for a server that ends, starts, or can't be reached; `UsageError` where it refuses."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise UsageError(
            f"the Redis server {where} refuses: {_text_of(error)}. Its password is in the variable {PASSWORD} of the "
            "environment, here and for each worker."
        ) from error
    except redis.RedisError as error:
        raise AwayError(f"{where}: {_text_of(error)}") from error


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).rstrip('.')[:200]}"
