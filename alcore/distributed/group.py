"""Several processes that run the same code: how they exchange values, and learn that one of them failed.

Everything goes between CPUs as plain bytes and JSON, never as pickled objects.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from alcore.distributed.packing import bytes_of, describe, pack, rebuild, unpack
from alcore.distributed.ranks import Ranks
from alcore.distributed.signs import BEAT_SECONDS, DEAD_AFTER, FAILURE, INTERRUPT, Heart, Listener, Patience, Silence
from alcore.errors import AlcoreError, Interrupted

T = TypeVar("T")
distributed: Any = torch.distributed

_HEARD, _LEFT, _MEETING = "heard/", "left/", "meeting/"
_GOES_LAST = 5.0  # seconds that rank 0 waits for the others at the end
_WORD_SECONDS = 2.0  # that a rank which failed has to leave word, once its connection is broken
_TRANSPORTS = ("gloo", "NCCL", "c10d", "Connection closed by peer", "Connection reset by peer")


class RankError(AlcoreError):
    """Another process of the run failed, so that this one ends too; `told` if it left word itself."""

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


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
        How often each rank gives a sign of life, and after how many seconds without one the others give it up.
    """

    def __init__(
        self,
        store: Any,
        group: Any,
        rank: int,
        size: int,
        *,
        beat_seconds: float = BEAT_SECONDS,
        dead_after: float = DEAD_AFTER,
    ) -> None:
        self.rank, self.size = rank, size
        self.healthy = True
        """Whether no rank is known to have failed."""
        self._whole_store, self._store, self._group = store, store, group
        self.beat_seconds, self.dead_after = beat_seconds, dead_after
        self._runs = self._meetings = 0
        self._asked_to_end: Callable[[], bool] = lambda: False
        self._heart: Heart | None = None

    def begin(self, asked_to_end: Callable[[], bool]) -> None:
        """Begin a run, which hears nothing of what became of the one before."""
        self._runs, self._meetings, self.healthy = self._runs + 1, 0, True
        self._store = distributed.PrefixStore(f"run {self._runs}", self._whole_store)
        self._asked_to_end = asked_to_end
        if self._heart is not None:
            self._heart.stop()
        self._heart = Heart(self._store, self.rank, self.beat_seconds)

    def share(self, make: Callable[[], T]) -> T:
        """Return on every rank what `make` returns on rank 0; it must be of what `alcore.codec` can store."""
        value: Any = None
        if self.main:
            value = self._or_fail(make)
        with self._collective("share"):
            if not self.main:
                return self._receive()  # type: ignore[no-any-return]
            self._send(value)
        return value  # type: ignore[no-any-return]

    def _send(self, value: Any) -> None:
        text, tensors = describe(value)
        self._broadcast(torch.tensor([len(text)]))
        self._broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        for one in tensors:
            self._broadcast(bytes_of(one))

    def _receive(self) -> Any:
        size = torch.zeros(1, dtype=torch.int64)
        self._broadcast(size)
        text = torch.zeros(int(size), dtype=torch.uint8)
        self._broadcast(text)
        return rebuild(bytes(text.numpy()), self._broadcast)

    def gather(self, value: T, *, soon: bool = False) -> list[T]:
        """Return the values of all ranks; each must be of what `alcore.codec` can store."""
        packed = self._or_fail(lambda: pack(value))
        with self._collective(None if soon else "gather"):
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
        with self._collective("any"):
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(flags)

    def alone(self, work: Callable[[], None]) -> None:
        """Let rank 0 work; the others meet it when it has done, and a failure or an interruption of theirs ends it."""
        if self.main:
            with Listener(self._store, self._silent):
                self._or_fail(work)
        with self._collective("alone"):
            pass

    def fail(self, error: BaseException) -> None:
        """Leave word why this rank ends; the first one's word stands."""
        self.healthy = False
        if isinstance(error, RankError) and error.told:
            return
        words = " ".join(f"{type(error).__name__}: {error}".split())
        text = json.dumps({"rank": self.rank, "error": words, "interrupted": isinstance(error, KeyboardInterrupt)})
        with contextlib.suppress(RuntimeError):  # the store is gone with its process
            self._store.compare_set(FAILURE, "", text)

    def cause(self, error: BaseException) -> BaseException:
        """Return the failure of another rank where one is behind a broken connection."""
        if isinstance(error, KeyboardInterrupt):
            return self._failure() or error
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
        if self._heart is not None:
            self._heart.stop()
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
    def _collective(self, kind: str | None) -> Iterator[None]:
        """Join in what all ranks do now, unless one of them failed before; a broken connection is explained.

        All meet in the store first, so that a rank may come as late as it likes, as long as it lives; not where `kind`
        is None.
        """
        try:
            if (told := self._failure()) is not None:
                raise told
            if kind is not None:
                self._meet(kind)
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
                if self._store.check([FAILURE]):
                    break
            except RuntimeError:  # rank 0 held the store, and is gone
                return None
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)
        told = json.loads(self._store.get(FAILURE))
        self._store.set(f"{_HEARD}{self.rank}", "")
        if told["rank"] == self.rank:
            return None
        self.healthy = False
        if told["interrupted"]:
            return Interrupted(f"rank {told['rank']} was asked to end")
        text = f"rank {told['rank']} failed, so that rank {self.rank} ends too: {told['error']}"
        return RankError(text, told=True)

    def _meet(self, kind: str) -> None:
        """Wait until all ranks have come, to the same kind of thing; for as long as they give signs of life."""
        self._meetings += 1
        place = f"{_MEETING}{self._meetings}"
        first = self._store.compare_set(f"{place}/kind", "", kind).decode()
        if first != kind:
            raise RankError(
                f"rank {self.rank} has come to {kind!r} and another rank to {first!r}, at meeting {self._meetings}: "
                "ranks must do alike, and a strategy, a loop or a criterion decided otherwise on one of them."
            )
        if self._store.add(f"{place}/count", 1) == self.size:
            self._store.set(f"{place}/all", "")
        if self.main and self._meetings > 2:
            for part in ("kind", "count", "all"):  # nobody is there any more
                self._store.delete_key(f"{_MEETING}{self._meetings - 2}/{part}")
        patience = Patience(self._store, self._silent)
        try:
            while not patience.wait_for(f"{place}/all"):
                if (told := self._failure()) is not None:
                    raise told
                if self._asked_to_end():
                    self._store.set(INTERRUPT, "")  # rank 0 may be working alone
        finally:
            patience.end()

    def _silent(self) -> Silence:
        return Silence(self._store, [rank for rank in range(self.size) if rank != self.rank], self.dead_after)

    def _broadcast(self, tensor: torch.Tensor) -> None:
        if tensor.numel():
            torch.distributed.broadcast(tensor, 0, group=self._group)
