"""The connection to a Redis or Valkey server, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from alcore.errors import UsageError
from alcore_worker.exchange import AwayError, FullError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise UsageError(
        "work through Redis needs the package redis; `pip install 'alcore-worker[redis]'` brings it, or give a folder."
    ) from error

__all__ = ["PASSWORD", "RedisServer", "redis"]

PASSWORD = "ALCORE_REDIS_PASSWORD"
"""The variable of the environment that holds the password, which is written nowhere."""
_OPTIONS, _OPTIONS_OF_TLS = {"db"}, {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_REFUSED = ("WRONGPASS", "NOAUTH", "NOPERM", "WRONGTYPE", "ERR unknown command", "ACL failure in script")
_LONGEST_CALL = 30.0  # seconds without an answer: much is sent in one call, and the server may have to write it
_READ_ONLY_FOR = 60.0  # seconds after which a server that takes no writes is no replica that becomes the master


class RedisServer:
    """A Redis or Valkey server.

    Parameters
    ----------
    where
        ``redis://HOST[:PORT][/DATABASE]``, ``rediss://...`` with TLS, or ``unix:///PATH``. It has no password: that
        is in the environment.
    longest_call
        Seconds after which a call without an answer has failed.

    Raises
    ------
    UsageError
        If it has another form.

    Attributes
    ----------
    client
        The client of the package redis. It sends a command again where the connection broke.
    once
        A client that sends each command once, for what is not to be done twice.
    where : str
        The address.
    """

    def __init__(self, where: str, longest_call: float = _LONGEST_CALL) -> None:
        self.where = where
        try:
            parts = urllib.parse.urlsplit(where)
        except ValueError as error:
            raise _no_address("what was given", error) from error  # it is not repeated here: it may have a password
        if parts.password is not None or "password=" in parts.query:
            raise UsageError(  # it is not repeated here
                "the address of the Redis server has a password, which would be written to experiment.toml; take it "
                f"out, and set the variable {PASSWORD} of the environment."
            )
        allowed = _OPTIONS | (_OPTIONS_OF_TLS if parts.scheme == "rediss" else set())
        if unknown := sorted(set(urllib.parse.parse_qs(parts.query, keep_blank_values=True)) - allowed):
            raise UsageError(
                f"the address {where!r} has {unknown[0]!r}; with {parts.scheme}:// it may have "
                f"{', '.join(sorted(allowed))}."
            )
        try:
            self.client: Any
            self.once: Any
            self.client, self.once = (
                redis.Redis.from_url(
                    where,
                    password=os.environ.get(PASSWORD) or None,
                    socket_connect_timeout=min(5.0, longest_call),
                    socket_timeout=longest_call,
                    health_check_interval=15,
                    retry=Retry(NoBackoff(), retries),
                )
                for retries in (1, 0)  # a connection that the server has closed is opened again
            )
        except ValueError as error:
            raise _no_address(repr(where), error) from error
        self._read_only_since: float | None = None

    def check(self) -> None:
        """Raise `UsageError` where the server can't be reached, or refuses."""
        try:
            self.client.ping()
        except ValueError as error:  # of the name of the host
            raise _no_address(repr(self.where), error) from error
        except redis.RedisError as error:
            raise UsageError(
                f"there is no Redis server for alcore at {self.where}: {_text_of(error)}. Start one, or mend the "
                f"address; its password belongs in the variable {PASSWORD} of the environment."
            ) from error

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Raise `AwayError` for a server that ends, starts, or can't be reached; `UsageError` where it refuses."""
        try:
            yield
            self._read_only_since = None
        except redis.RedisError as error:
            raise self._fault(error) from error

    def _fault(self, error: redis.RedisError) -> AwayError | UsageError:
        text = f"{self.where}: {_text_of(error)}"
        refused = isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)
        if refused or any(refusal in str(error) for refusal in _REFUSED):
            return UsageError(
                f"the Redis server {text}. It refuses that for good: look at the password, which is in the variable "
                f"{PASSWORD} of the environment, at what its user may do, and whether something else uses the database."
            )
        if isinstance(error, redis.ReadOnlyError):
            self._read_only_since = self._read_only_since or time.monotonic()
            if time.monotonic() - self._read_only_since > _READ_ONLY_FOR:
                return UsageError(
                    f"the Redis server {text}. It has taken no writes for {_READ_ONLY_FOR:g} s; give the address of "
                    "the server that does."
                )
        is_full = isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith(("OOM", "MISCONF"))
        return FullError(text) if is_full else AwayError(text)


def _no_address(where: str, error: ValueError) -> UsageError:
    return UsageError(
        f"{where} is not the address of a Redis server: {str(error).rstrip('.')}. Write redis://HOST, "
        "redis://HOST:PORT/DATABASE, rediss://HOST for TLS, or unix:///PATH."
    )


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).rstrip('.')[:200]}"
