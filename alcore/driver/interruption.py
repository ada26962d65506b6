"""How a run is asked to end: by Ctrl-C, a signal or another thread, and at which points it does."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator

from alcore.distributed.ranks import Ranks
from alcore.errors import Interrupted, is_importing


class Interruption:
    """The request to end a run, and the safe points where it takes effect.

    Parameters
    ----------
    ranks
        The processes of the run. Several of them end together, where all ask each other.

    Notes
    -----
    Safe points are between batches, scored chunks, answers and phases. A label strategy may wait for days, so it is
    interrupted at once, unless a transaction is under way or it imports a module: what would be raised there could
    become another error, which counts as a failure of the label.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._committing: Callable[[], bool] | None = None  # set while a label strategy works
        self._is_in_import = False  # the whole program, and not only what the label strategy does
        self.requested = False

    def request(self) -> None:
        """Ask the run to end; usable from a signal handler or another thread."""
        self.requested = True
        committing = self._committing
        if committing is None or threading.current_thread() is not threading.main_thread() or committing():
            return
        if self._is_in_import or not is_importing(inspect.currentframe()):
            self.safe_point()

    @contextlib.contextmanager
    def immediate(self, committing: Callable[[], bool]) -> Iterator[None]:
        """Let a request end the block wherever it is, unless `committing` returns True or a module is imported."""
        self._is_in_import = is_importing(inspect.currentframe())
        self._committing = committing
        try:
            self.safe_point()
            yield
        finally:
            self._committing = None

    def safe_point(self) -> None:
        """Raise `Interrupted` if the run was asked to end.

        With several ranks this does nothing: they end in `agreed_safe_point`. The exception is rank 0 while a label
        strategy works and the others wait: it ends here if it was asked to, or if another rank has ended.
        """
        if self._committing is None:
            if self.requested and self._ranks.size == 1:
                raise Interrupted("it was asked to end")
        elif self.requested or self._ranks.others_ended():
            raise Interrupted("it was asked to end")

    def agree(self) -> bool:
        """Return on all ranks alike whether one of them was asked to end; all must call this at once."""
        agreed = self._ranks.any(self.requested)
        if agreed:
            self.requested = True  # it stays so: this rank may be asked to end while the ranks exchange
        return agreed

    def agreed_safe_point(self) -> None:
        """Raise `Interrupted` on all ranks if one of them was asked to end; all must call this at once."""
        if self.agree():
            raise Interrupted("it was asked to end")
