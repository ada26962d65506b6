"""One call of the user's function: what it is given, and what comes of it. A worker process needs this file alone."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import numbers
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from alcore_labelers.results import Infeasible, Labeled

_LONGEST_REASON = 500
_FAULTS_OF_PROGRAMS = (TypeError, AttributeError, NameError, ImportError, SyntaxError, NotImplementedError)


class CallOutcome(NamedTuple):
    """What became of one item.

    Parameters
    ----------
    kind
        ``"label"``, or a kind of failure as `alcore.Failed` has it.
    value
        Of a label.
    reason
        Of a failure.
    cost
        What the function says it cost, if it does.
    seconds
        How long the call took, divided by the number of its items.
    again
        Whether another call may succeed.
    detail
        The traceback of a failure.
    """

    kind: Literal["label", "infeasible", "infrastructure", "timeout"]
    value: Any = None
    reason: str = ""
    cost: float | None = None
    seconds: float = 0.0
    again: bool = False
    detail: str = ""


class Inputs(NamedTuple):
    """What one call is given.

    Parameters
    ----------
    value
        The argument of the function.
    size
        How many items it holds.
    seed
        For random numbers; the same whenever the first of its requests is tried.
    """

    value: Any
    size: int
    seed: int


@dataclasses.dataclass(frozen=True)
class FunctionCall:
    """The user's function, called so that it never raises.

    Parameters
    ----------
    function
        The user's function.
    batch
        Whether it takes columns, and returns a result for each item.
    infeasible
        Exceptions by which it says that an item has no label.
    gives_seed
        Whether it is given ``seed``.
    seeds_globals
        Whether the global generators are seeded before each call; no other thread may be using them.
    """

    function: Callable[..., Any]
    batch: bool = False
    infeasible: tuple[type[BaseException], ...] = ()
    gives_seed: bool = False
    seeds_globals: bool = False

    def __call__(self, inputs: Inputs) -> list[CallOutcome]:
        """Call the function; return an outcome for each item."""
        if self.seeds_globals:
            seed_globals(inputs.seed)
        given = {"seed": inputs.seed} if self.gives_seed else {}
        start = time.perf_counter()
        try:
            returned = self.function(inputs.value, **given)
            outcomes = self._each(returned, inputs.size) if self.batch else [outcome_of(returned)]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's code raises
            outcomes = [self._raised(error)] * inputs.size
        seconds = (time.perf_counter() - start) / inputs.size
        return [outcome._replace(seconds=seconds) for outcome in outcomes]

    def _raised(self, error: BaseException) -> CallOutcome:
        detail = "".join(traceback.format_exception(error))
        if isinstance(error, (Infeasible, *self.infeasible)):
            if not self.batch:
                return _infeasible(error)
            reason = f"it raised {_text_of(error)} for a batch; return Infeasible as the result of the item"
            return CallOutcome("infrastructure", reason=reason, detail=detail)
        again = not isinstance(error, _FAULTS_OF_PROGRAMS)
        return CallOutcome("infrastructure", reason=f"{_text_of(error)}{_place_of(error)}", again=again, detail=detail)

    def _each(self, returned: Any, size: int) -> list[CallOutcome]:
        if isinstance(returned, Mapping | str) or not hasattr(returned, "__len__") or np.ndim(len(returned)):
            got = f"a {type(returned).__name__}"
        elif len(returned) != size:
            got = f"{len(returned)} results"
        else:
            return [outcome_of(returned[place]) for place in range(size)]
        reason = f"it returned {got} for a batch of {size} items; it must return a list or an array of {size} results"
        return [CallOutcome("infrastructure", reason=reason)] * size


def outcome_of(returned: Any) -> CallOutcome:
    """Return what a result of the function stands for."""
    if isinstance(returned, Infeasible):
        return _infeasible(returned)
    try:
        if isinstance(returned, Labeled):
            return CallOutcome("label", plain(returned.value), cost=_checked_cost(returned.cost))
        return CallOutcome("label", plain(returned))
    except TypeError as error:
        return CallOutcome("infrastructure", reason=str(error))


def plain(value: Any) -> Any:
    """Return a value as numbers, text, arrays of NumPy, and lists and mappings of these.

    Raises
    ------
    TypeError
        If it is something else, and can't be a label.
    """
    if value is None:
        raise TypeError("it returned None, which is not a label; it raises alcore_labelers.Infeasible if there is none")
    if isinstance(value, bool | int | float | complex) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return np.asarray(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(member) for member in value]
    if hasattr(value, "detach"):  # a tensor; torch is not imported for this
        return plain(value.detach().cpu().numpy())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    array = np.asarray(value) if hasattr(value, "__array__") else None
    if array is None or array.dtype.kind not in "biufc":
        raise TypeError(f"it returned a {type(value).__name__}; a label is a number, text, an array or a list")
    return array


def seed_globals(seed: int) -> None:
    """Seed the global generators of python, and of NumPy and PyTorch where they are imported."""
    random.seed(seed)
    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.5 ms where no device is in use
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)


def _infeasible(error: BaseException) -> CallOutcome:
    if not isinstance(error, Infeasible):
        return CallOutcome("infeasible", reason=_text_of(error))
    try:
        return CallOutcome("infeasible", reason=str(error)[:_LONGEST_REASON], cost=_checked_cost(error.cost))
    except TypeError as fault:
        return CallOutcome("infrastructure", reason=str(fault))


def _checked_cost(cost: Any) -> float | None:
    if cost is None:
        return None
    if isinstance(cost, numbers.Real) and 0 <= float(cost) < float("inf"):
        return float(cost)
    raise TypeError(f"it says that it cost {cost!r}, which is not a number of at least 0")


def _text_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"[:_LONGEST_REASON]
    text = str(error)
    return f"{type(error).__name__}: {text}"[:_LONGEST_REASON] if text else type(error).__name__


def _place_of(error: BaseException) -> str:
    """Return the line where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is of this file
    return f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""  # noqa: PTH119


# -- in a worker process ----------------------------------------------------------------------------------------

_call: FunctionCall | None = None


def begin_worker(call: FunctionCall) -> None:
    """Prepare a worker process: its prints go to stderr, and it ends with its parent, and with what it started."""
    global _call
    _call = call
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        os.dup2(2, 1)  # stdout is for the results of the command
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):
            os.setsid()  # so that ctrl-C reaches only the driver, and programs that the function started end with it
    if hasattr(signal, "set_wakeup_fd"):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_on_signal, args=(reader,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: end_worker())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def call_in_worker(inputs: Inputs) -> list[CallOutcome]:
    """Call the function of this worker process."""
    assert _call is not None
    return _call(inputs)


def end_worker() -> None:
    """End this process, and the programs that it started, at once."""
    if hasattr(os, "killpg") and os.getpid() == os.getpgrp():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has no SIGKILL, and ends it at either


def _end_on_signal(reader: int) -> None:
    """Wait for SIGTERM in a thread: a handler of Python does not run while the function is in native code."""
    while signal.SIGTERM not in os.read(reader, 64):
        pass
    end_worker()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        end_worker()
