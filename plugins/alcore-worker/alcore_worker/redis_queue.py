"""A queue between query and label strategies that is kept in Redis or Valkey."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
import weakref
from typing import Any

from alcore.errors import UsageError
from alcore_worker.exchange import AwayError
from alcore_worker.redis_server import RedisServer

ADDRESS = "ALCORE_REDIS_URL"
"""The variable of the environment that holds the address of the server."""
_KEPT = 7 * 86400  # seconds after which the server removes a queue that nobody uses any more
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.2  # seconds between two looks into an empty queue
_LONGEST_FORGET = 2.0  # seconds that a call may take with which a queue is removed
_OUTAGE = 60.0  # seconds for which a server may be away

# Each script is one transaction, and may be sent again where the reply was lost: the number of the last call, and what
# it returned, are kept with the list. KEYS: list, state. ARGV: number of the call, items put by this process, seconds
# to keep it, item. Returned is whether the server still has the queue, and what was taken.
_PUT = """
if tonumber(redis.call('HGET', KEYS[2], 'put') or 0) < tonumber(ARGV[2]) - 1 then return {0} end
if redis.call('HGET', KEYS[2], 'call') ~= ARGV[1] then
  redis.call('HSET', KEYS[2], 'call', ARGV[1], 'put', ARGV[2])
  redis.call('RPUSH', KEYS[1], ARGV[4])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return {1}
"""
_GET = """
if tonumber(redis.call('HGET', KEYS[2], 'put') or 0) < tonumber(ARGV[2]) then return {0} end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
if redis.call('HGET', KEYS[2], 'call') ~= ARGV[1] then
  local item = redis.call('LPOP', KEYS[1])
  if not item then return {1} end
  redis.call('HSET', KEYS[2], 'call', ARGV[1], 'item', item)
end
return {1, redis.call('HGET', KEYS[2], 'item')}
"""


class RedisQueue:
    """A ``queue_cls`` in a Redis or Valkey server: first in, first out, and empty when it is made.

    What travels through the queue of a run are whole numbers, one for each request. The requests themselves, and what
    was answered, are in the database of the run: if the run is resumed, it fills a new queue with what is open there.
    So nothing depends on what the server keeps; a server that lost the queue ends the run, which is resumed.

    Parameters
    ----------
    where
        ``redis://HOST[:PORT][/DATABASE]``, ``rediss://...`` or ``unix:///PATH``; what the variable ALCORE_REDIS_URL of
        the environment says, if it is not given. The password is in ALCORE_REDIS_PASSWORD.

    Raises
    ------
    UsageError
        If there is no address, or no server.

    Notes
    -----
    The list is ``alcore:queue:NAME``, where NAME is random, and its state ``alcore:queue:NAME:state``. Both are removed
    when the process ends, or by the server a week after they were used last. Threads may share a queue, processes not.
    """

    def __init__(self, where: str | None = None) -> None:
        address = where or os.environ.get(ADDRESS)
        if not address:
            raise UsageError(
                f"the queue `redis` needs the address of a server: set the variable {ADDRESS} of the environment to "
                "redis://HOST, or give it in Python, as in queue_cls=lambda: RedisQueue('redis://HOST')."
            )
        self._server = RedisServer(address)
        self._server.check()
        name = f"alcore:queue:{secrets.token_hex(16)}"
        self._keys = [name, f"{name}:state"]
        self._put_script, self._get_script = (self._server.client.register_script(text) for text in (_PUT, _GET))
        self._lock = threading.Lock()
        self._calls = self._put = 0
        weakref.finalize(self, _forget, address, self._keys)

    def put(self, item: int) -> None:
        """Add a whole number at the end."""
        if isinstance(item, bool) or not isinstance(item, int):
            raise UsageError(f"a RedisQueue holds whole numbers, and {item!r:.60} is a {type(item).__name__}.")
        with self._lock:
            self._put += 1
            self._call(self._put_script, item)

    def get(self) -> int:
        """Take out the first number; wait for one where there is none."""
        wait = _SHORTEST_WAIT
        while True:
            with self._lock:
                item = self._call(self._get_script)
            if item:
                return int(item[0])
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _call(self, script: Any, *arguments: int) -> list[bytes]:
        """Return what a script returns; it is called again while the server is away."""
        self._calls += 1
        end, wait = time.monotonic() + _OUTAGE, _SHORTEST_WAIT
        while True:
            try:
                with self._server.away():
                    is_there, *answer = script(keys=self._keys, args=[self._calls, self._put, _KEPT, *arguments])
                break
            except AwayError as error:
                if time.monotonic() > end:
                    raise UsageError(
                        f"the queue in Redis can't be reached for {_OUTAGE:g} s: {error}. Look at the server, and go "
                        "on with the run (alcore resume): its requests are in its own database."
                    ) from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        if not is_there:
            raise UsageError(
                f"the Redis server {self._server.where} has lost the queue. Go on with the run (alcore resume): its "
                "requests are in its own database, and fill a new queue."
            )
        return list(answer)


def _forget(where: str, keys: list[str]) -> None:
    """Remove a queue from its server, if that is there; a process that ends doesn't wait for one that hangs."""
    with contextlib.suppress(Exception):
        RedisServer(where, longest_call=_LONGEST_FORGET).client.unlink(*keys)
