"""Signs of life: each rank gives them, whatever it does, and those who wait look whether the others still do.

All goes through the store of the group, from threads of their own: a store doesn't answer where the process that has it
was stopped.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

FAILURE, INTERRUPT = "failure", "interrupt"
"""Under these keys a rank leaves word that it failed, or was asked to end."""

BEAT_SECONDS, DEAD_AFTER = 5.0, 60.0
_BEAT = "beat/"


class Heart:
    """Gives a sign of life of a rank every so many seconds, for as long as the process lives."""

    def __init__(self, store: Any, rank: int, seconds: float) -> None:
        self._store, self._key, self._seconds = store, f"{_BEAT}{rank}", seconds
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        """Give no more."""
        self._ended.set()

    def _beat(self) -> None:
        beats = 0
        while not self._ended.wait(self._seconds):
            beats += 1
            with contextlib.suppress(RuntimeError):  # the store is gone with its process
                self._store.set(self._key, str(beats))


class Silence:
    """Knows for how long each of some ranks has given no sign."""

    def __init__(self, store: Any, ranks: Sequence[int], dead_after: float) -> None:
        self._store, self._dead_after = store, dead_after
        now = time.monotonic()
        self._last: dict[int, tuple[bytes, float]] = dict.fromkeys(ranks, (b"", now))

    def look(self) -> None:
        """Look for new signs."""
        for rank, (sign, _) in self._last.items():
            found = self._store.get(f"{_BEAT}{rank}") if self._store.check([f"{_BEAT}{rank}"]) else b""
            if found != sign:
                self._last[rank] = found, time.monotonic()

    def dead(self) -> list[int]:
        """Return the ranks that were silent for too long."""
        now = time.monotonic()
        return [rank for rank, (_, last) in self._last.items() if now - last > self._dead_after]

    def message(self) -> str:
        """Say who is silent."""
        ranks = ", ".join(map(str, self.dead()))
        return (
            f"rank {ranks} has given no sign of life for {self._dead_after:g} s, so that the others end. Start the run "
            "again with all of them; it goes on from what is committed."
        )


class Patience:
    """Waits for a key in the store: at first here, and when that takes longer, in a thread."""

    def __init__(self, store: Any, silence: Callable[[], Silence], *, here: float = 0.5) -> None:
        self._store, self._make_silence, self._until = store, silence, time.monotonic() + here
        self._pause = 0.0002
        self._silence: Silence | None = None
        self._found, self._ended = threading.Event(), threading.Event()
        self._error: RuntimeError | None = None

    def wait_for(self, key: str) -> bool:
        """Wait for a moment; return whether the key is there. Raises an error where a rank has been silent too long."""
        if time.monotonic() < self._until:
            for _ in range(20):
                if self._store.check([key]):
                    return True
                time.sleep(self._pause)
            self._pause = min(2 * self._pause, 0.01)
            return False
        if self._silence is None:
            self._silence = self._make_silence()
            threading.Thread(target=self._look, args=(key, self._silence), daemon=True).start()
        found = self._found.wait(0.2)
        if self._error is not None:
            raise self._error
        if not found and self._silence.dead():
            raise RuntimeError(self._silence.message())
        return found

    def end(self) -> None:
        """Wait no more."""
        self._ended.set()

    def _look(self, key: str, silence: Silence) -> None:
        try:
            while not self._ended.wait(0.05):
                if self._store.check([key]):
                    self._found.set()
                    return
                silence.look()
        except RuntimeError as error:  # the store is gone with its process
            self._error = error


class Listener:
    """While rank 0 works alone: interrupts it where another rank has failed, was asked to end, or is silent."""

    def __init__(self, store: Any, silence: Callable[[], Silence]) -> None:
        self._store, self._silence = store, silence()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(1.0)

    def _listen(self) -> None:
        with contextlib.suppress(RuntimeError):
            while not self._ended.wait(0.5):
                self._silence.look()
                if self._store.check([FAILURE]) or self._store.check([INTERRUPT]) or self._silence.dead():
                    main = threading.main_thread().ident
                    if main is not None and not self._ended.is_set():
                        signal.pthread_kill(main, signal.SIGINT)  # ends what it waits for, too
                    return
