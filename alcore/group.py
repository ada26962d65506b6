"""Several processes that run the same code: how they exchange values, and learn that one of them failed.

Everything goes between CPUs as plain bytes and JSON, never as pickled objects.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from alcore.errors import AlcoreError, Interrupted
from alcore.ranks import Ranks
from alcore.store.codec import decode, dtype_of, encode
from alcore.wire import bytes_of, form, pack, unpack

T = TypeVar("T")

_FAILURE, _HEARD, _LEFT = "failure", "heard/", "left/"
_BEAT, _BEAT_SECONDS = "beat", 5.0
_GOES_LAST = 5.0  # seconds that rank 0 waits for the others at the end
_WORD_SECONDS = 2.0  # that a rank which failed has to leave word, once its connection is broken
_DEAD_AFTER = 60.0  # seconds without a beat
_TRANSPORTS = ("gloo", "NCCL", "c10d", "Connection closed by peer", "Connection reset by peer")


class RankError(AlcoreError):
    """Another process of the run failed, so that this one ends too."""


class _Watch:
    """Asks the store in a thread, until rank 0 is done, or some rank has failed; notes when rank 0 gave a sign."""

    def __init__(self, store: Any, done: str) -> None:
        self._store, self._done = store, done
        self.ended, self.last_sign = threading.Event(), time.monotonic()
        self.error: RuntimeError | None = None
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        sign, pause = b"", 0.005
        try:
            while not (self._store.check([self._done]) or self._store.check([_FAILURE])):
                now = self._store.get(_BEAT) if self._store.check([_BEAT]) else b""
                if now != sign:
                    sign, self.last_sign = now, time.monotonic()
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
        except RuntimeError as error:  # the store is gone with its process
            self.error = error
        self.ended.set()


class Group(Ranks):
    """Several processes that run the same code.

    Parameters
    ----------
    store
        A `torch.distributed.Store`, where each rank can leave a word for the others, whatever they are doing.
    group
        A `torch.distributed.ProcessGroup` that moves tensors between their CPUs.
    rank, size
        Number of this process, and how many there are.
    beat_seconds, dead_after
        How often rank 0 gives a sign of life while it works alone, and after how many seconds without one the
        others give up.
    """

    def __init__(
        self,
        store: Any,
        group: Any,
        rank: int,
        size: int,
        *,
        beat_seconds: float = _BEAT_SECONDS,
        dead_after: float = _DEAD_AFTER,
    ) -> None:
        self.rank, self.size = rank, size
        self.healthy = True
        """Whether no rank is known to have failed."""
        self._store, self._group = store, group
        self._beat_seconds, self._dead_after = beat_seconds, dead_after
        self._alone = 0

    def share(self, make: Callable[[], T]) -> T:
        """Return on every rank what `make` returns on rank 0; it must be of what `alcore.store.codec` can store."""
        value: Any = None
        if self.main:
            value = self._or_fail(make)
        with self._collective():
            if not self.main:
                return self._receive()  # type: ignore[no-any-return]
            self._send(value)
        return value  # type: ignore[no-any-return]

    def _send(self, value: Any) -> None:
        tensors: dict[str, torch.Tensor] = {}
        described = encode(value, tensors=tensors)
        header = {"value": described, "tensors": [[name, *form(one)] for name, one in tensors.items()]}
        text = torch.frombuffer(bytearray(json.dumps(header), "utf-8"), dtype=torch.uint8)
        self._broadcast(torch.tensor([len(text)]))
        self._broadcast(text)
        for one in tensors.values():
            self._broadcast(bytes_of(one))

    def _receive(self) -> Any:
        size = torch.zeros(1, dtype=torch.int64)
        self._broadcast(size)
        text = torch.zeros(int(size), dtype=torch.uint8)
        self._broadcast(text)
        header = json.loads(bytes(text.numpy()))
        tensors = {name: torch.empty(shape, dtype=dtype_of(dtype)) for name, dtype, shape in header["tensors"]}
        for one in tensors.values():
            self._broadcast(bytes_of(one))
        return decode(header["value"], tensors)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks; each must be of what `alcore.store.codec` can store."""
        packed = self._or_fail(lambda: pack(value))
        with self._collective():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            torch.distributed.all_gather(sizes, torch.tensor([len(packed)]), group=self._group)
            largest = int(max(sizes))
            parts = [torch.empty(largest, dtype=torch.uint8) for _ in range(self.size)]
            own = torch.zeros(largest, dtype=torch.uint8)
            own[: len(packed)] = packed
            torch.distributed.all_gather(parts, own, group=self._group)
        found = [unpack(part[: int(size)]) for part, size in zip(parts, sizes, strict=True)]
        found[self.rank] = value
        return found

    def any(self, flag: bool) -> bool:
        """Tell every rank whether the flag of some rank is up."""
        flags = torch.tensor([int(flag)])
        with self._collective():
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(flags)

    def alone(self, work: Callable[[], None]) -> None:
        """Let rank 0 work, with a beat in the store that tells the others that it lives."""
        self._alone += 1
        done = f"alone/{self._alone}"
        if not self.main:
            self._wait(done)
            return
        ended = threading.Event()
        beat = threading.Thread(target=self._give_signs, args=(ended,), daemon=True)
        beat.start()
        try:
            self._or_fail(work)
        finally:
            ended.set()
            beat.join()
        with self._collective():
            self._store.set(done, "done")

    def fail(self, error: BaseException) -> None:
        """Leave word why this rank ends; the first one's word stands."""
        self.healthy = False
        if isinstance(error, RankError):
            return
        words = " ".join(f"{type(error).__name__}: {error}".split())
        text = json.dumps({"rank": self.rank, "error": words, "interrupted": isinstance(error, KeyboardInterrupt)})
        with contextlib.suppress(RuntimeError):  # the store is gone with its process
            self._store.compare_set(_FAILURE, "", text)

    def cause(self, error: BaseException) -> BaseException:
        """Return the failure of another rank where one is behind a broken connection."""
        if not isinstance(error, RuntimeError) or isinstance(error, AlcoreError):
            return error
        broken = isinstance(error, torch.distributed.DistError) or any(name in str(error) for name in _TRANSPORTS)
        told = self._failure(wait=_WORD_SECONDS if broken else 0.0)
        return told or (self._lost(error) if broken else error)

    def leave(self, end: Callable[[], None]) -> None:
        """End the group by `end`, all together where all are well.

        The store is in the process of rank 0, unless torchrun has one: there, rank 0 goes last.
        """
        with contextlib.suppress(RuntimeError, AlcoreError):
            if self.healthy:
                self.any(False)
        with contextlib.suppress(RuntimeError):
            end()
            self._store.set(f"{_LEFT}{self.rank}", "")
        if not self.main or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        until = time.monotonic() + _GOES_LAST
        words = [_LEFT] if self.healthy else [_LEFT, _HEARD]
        others = set(range(1, self.size))
        while others and time.monotonic() < until:
            with contextlib.suppress(RuntimeError):
                others -= {rank for rank in others if any(self._store.check([f"{word}{rank}"]) for word in words)}
            time.sleep(0.01)

    def _or_fail(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException as error:
            self.fail(error)
            raise

    @contextlib.contextmanager
    def _collective(self) -> Iterator[None]:
        """Join in what all ranks do now, unless one of them failed before; a broken connection is explained."""
        try:
            if (told := self._failure()) is not None:
                raise told
            yield
        except RuntimeError as error:
            self.healthy = False
            if isinstance(error, AlcoreError):
                raise
            raise self._failure(wait=_WORD_SECONDS) or self._lost(error) from error

    def _lost(self, error: BaseException) -> RankError:
        self.healthy = False
        return RankError(
            f"rank {self.rank} of {self.size} lost its connection to the others: {' '.join(str(error).split())[:300]}. "
            "One of them was killed, or did not answer in time. Start the run again with all of them; it goes on from "
            "what is committed."
        )

    def _failure(self, wait: float = 0.0) -> BaseException | None:
        """Return the failure that another rank has left word of, or None; wait up to so many seconds for its word."""
        until = time.monotonic() + wait
        while True:
            try:
                if self._store.check([_FAILURE]):
                    break
            except RuntimeError:  # rank 0 held the store, and is gone
                return None
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)
        told = json.loads(self._store.get(_FAILURE))
        self._store.set(f"{_HEARD}{self.rank}", "")
        if told["rank"] == self.rank:
            return None
        self.healthy = False
        if told["interrupted"]:
            return Interrupted(f"rank {told['rank']} was asked to end")
        return RankError(f"rank {told['rank']} failed, so that rank {self.rank} ends too: {told['error']}")

    def _give_signs(self, ended: threading.Event) -> None:
        beats = 0
        while not ended.wait(self._beat_seconds):
            beats += 1
            with contextlib.suppress(RuntimeError):
                self._store.set(_BEAT, f"{self._alone} {beats}")

    def _wait(self, done: str) -> None:
        """Wait until rank 0 has done its work.

        Another thread asks the store, which doesn't answer where the process that has it was stopped.
        """
        watch = _Watch(self._store, done)
        with self._collective():
            while not watch.ended.wait(0.2):
                if time.monotonic() - watch.last_sign > self._dead_after:
                    self.healthy = False
                    raise RankError(
                        f"rank 0 has given no sign of life for {self._dead_after:g} s, so that rank {self.rank} ends. "
                        "Start the run again with all of them; it goes on from what is committed."
                    )
            if watch.error is not None:
                raise watch.error
            if (told := self._failure()) is not None:
                raise told

    def _broadcast(self, tensor: torch.Tensor) -> None:
        if tensor.numel():
            torch.distributed.broadcast(tensor, 0, group=self._group)
