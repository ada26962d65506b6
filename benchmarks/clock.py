"""How long a run is inside its store: used by ``store.py`` and ``loop/moons.py``.

The one place outside of core and tests that takes hold of parts of core that aren't public.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from alcore.driver.answer_queue import AnswerQueue
from alcore.store.costs import Costs
from alcore.store.labels import Labels
from alcore.store.requests import Requests
from alcore.store.run import RunStore
from alcore.store.steps import Steps
from alcore.store.transfer import Transfer


def _is_timed(name: str, value: Any) -> bool:
    is_context = hasattr(value, "__wrapped__") and inspect.isgeneratorfunction(value.__wrapped__)
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod)) and not is_context


ENTRIES: list[tuple[Any, str]] = [
    *(
        (owner, name)
        for owner in (RunStore, Requests, Labels, Costs, Steps, Transfer)
        for name, value in vars(owner).items()
        if _is_timed(name, value)
    ),
    (AnswerQueue, "put_many"),
]
"""The public methods of the store, and the delivery of labels, which is one transaction with checks around it."""


@contextlib.contextmanager
def store_clock(now: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Add up the seconds inside the store while the block runs.

    Parameters
    ----------
    now
        The clock, such as `time.perf_counter` or `time.process_time`.

    Yields
    ------
    dict
        ``"seconds"``, which may be set back to 0 at any time.
    """
    clock, depth = {"seconds": 0.0}, 0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            began = now()
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1
                if not depth:
                    clock["seconds"] += now() - began

        return wrapper

    saved = [(owner, name, vars(owner)[name]) for owner, name in ENTRIES]
    for owner, name, function in saved:
        is_class_method = isinstance(function, classmethod)
        replaced: Any = timed(function.__func__ if is_class_method else function)
        setattr(owner, name, classmethod(replaced) if is_class_method else replaced)
    try:
        yield clock
    finally:
        for owner, name, function in saved:
            setattr(owner, name, function)
