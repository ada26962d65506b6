"""The label strategy that calls a function: in this process, in threads, in worker processes, or in an executor."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import inspect
import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from alcore.errors import UsageError, check_choice, did_you_mean, reason_of
from alcore.plugins import import_code
from alcore.pools import cost_of, is_choosable, named_values
from alcore.protocols import Failed, Label, LabelQueue, QueryQueue, Request
from alcore.strategies import BaseLabel
from alcore_labelers.backends import Backend, ExecutorBackend, ProcessBackend, ThreadBackend
from alcore_labelers.calls import CallOutcome, FunctionCall, Inputs
from alcore_labelers.dispatch import Answer, Call, Dispatcher
from alcore_labelers.items import Item, read_items
from alcore_labelers.queues import give_back

_LONGEST_WAIT = 60.0  # seconds between two tries
_LOOKED_UP = "It is looked up as module:name from the current folder and the installed packages."


class FunctionLabelStrategy(BaseLabel):
    """Call a function for each label: ``f(inputs) -> label``, in this process or in several others.

    Each label is on the disk as soon as it is there. The function raises `alcore_labelers.Infeasible` for an input that
    has no label; whatever else it raises counts as a failure of the machine.

    Parameters
    ----------
    function
        The function, as "module:name", or the object in Python. It returns a number, text (the name of a class), an
        array or a list.
    run_in
        "here": in this process, one call after the other. "threads": in threads of this process. "processes": in worker
        processes, where a call that crashes or hangs costs only its own item.
    workers
        How many threads or processes; one for each CPU if it is not given.
    timeout
        Seconds after which a call is ended, in "processes"; with an executor it is only not waited for any more. There
        is no limit if it is not given.
    batch
        Whether the function takes many inputs at once, as columns, and returns one result for each.
    batch_size
        How many inputs it takes at most, with `batch`.
    give
        What it is given: "values" (a mapping of named values, as the data shows them), "input" (the learner's input, an
        array), or "auto": the values where the data names them, else the input.
    seed
        Whether it is also given ``seed=N``, a whole number for random numbers, the same whenever a request is tried.
    infeasible
        Exceptions, each as "module:Name" or "ValueError", by which it says that an input has no label.
    cost
        What a call costs: a number, "seconds" for the time that it takes, or a function of the inputs, as
        "module:name". If it is not given: what the data says, else 1. The function may say it itself, by returning
        `alcore_labelers.Labeled`.
    retries
        How often a call that failed is tried again; 2 if it is not given, and 0 where `idempotent` is False. Mistakes
        in a program (TypeError, AttributeError, NameError, ImportError) are not tried again, nor is a timeout.
    backoff
        Seconds before the second try, doubled before each further one, up to 60; they vary by half at random.
    max_in_flight
        How many requests are taken out at a time; twice what the workers work on if it is not given.
    idempotent
        Whether it does no harm to call it again for a request. If not, what was being called when a run was cut off is
        asked for again only with ``--in-doubt ask``.
    context
        How worker processes are started: "forkserver", which imports the main script once, or "spawn"; the first where
        the system has it, if it is not given.
    executor
        A ``concurrent.futures.Executor``, of Dask or MPI for instance, that runs the calls; from Python only.
    """

    code_parameters = frozenset({"function", "infeasible", "cost"})

    remote = True
    """It also works in ``alcore worker``."""

    cost: Callable[[Any], float]

    def __init__(
        self,
        function: str | Callable[..., Any],
        run_in: Literal["here", "threads", "processes"] = "here",
        workers: int | None = None,
        timeout: float | None = None,
        batch: bool = False,
        batch_size: int = 32,
        give: Literal["auto", "values", "input"] = "auto",
        seed: bool = False,
        infeasible: str | tuple[str | type[BaseException], ...] = (),
        cost: float | str | Callable[[Any], float] | None = None,
        retries: int | None = None,
        backoff: float = 1.0,
        max_in_flight: int | None = None,
        idempotent: bool = True,
        context: Literal["forkserver", "spawn"] | None = None,
        executor: Executor | None = None,
    ) -> None:
        check_choice("FunctionLabelStrategy", "run_in", run_in, ("here", "threads", "processes"))
        check_choice("FunctionLabelStrategy", "give", give, ("auto", "values", "input"))
        contexts = [method for method in ("forkserver", "spawn") if method in multiprocessing.get_all_start_methods()]
        if context is not None:
            check_choice("FunctionLabelStrategy", "context", context, contexts)
        _check_count("workers", workers, 1)
        _check_count("batch_size", batch_size, 1)
        _check_count("retries", retries, 0)
        _check_count("max_in_flight", max_in_flight, 1)
        _check_seconds("timeout", timeout, above=True)
        _check_seconds("backoff", backoff)
        if executor is not None and not callable(getattr(executor, "submit", None)):
            _refuse(f"executor is a {type(executor).__name__}; it must be a concurrent.futures.Executor")
        if executor is not None and (run_in != "here" or workers is not None):
            _refuse("an executor has its own workers; leave out run_in and workers")
        if workers is not None and workers > 1 and run_in == "here":
            _refuse(f"workers is {workers}, and run_in is 'here'; set run_in to 'processes' or 'threads'")
        if timeout is not None and executor is None and run_in != "processes":
            _refuse(f"timeout is {timeout:g}, and run_in {run_in!r} can't end a call; set run_in to 'processes'")
        if retries and not idempotent:
            _refuse(
                f"retries is {retries}, and idempotent is False: a call that failed may have had its effect, and would "
                "be made twice. Leave out one of them"
            )
        self._run_in, self._executor, self._context = run_in, executor, context or contexts[0]
        self._workers = 1 if run_in == "here" else workers or os.cpu_count() or 1
        self._timeout, self._give, self._batch = timeout, give, batch
        self._size = batch_size if batch else 1
        self._retries = (2 if idempotent else 0) if retries is None else retries
        self._backoff = backoff
        self.idempotent = idempotent
        self._most = self._in_flight(max_in_flight)
        self._call = FunctionCall(
            _function("function", function), batch, _exceptions(infeasible), seed, seeds_globals=run_in != "threads"
        )
        if executor is not None:
            self._call = dataclasses.replace(self._call, seeds_globals=False)  # it may share a process with others
        elif run_in == "processes":
            _check_processes(self._call)
        self._source = function if isinstance(function, str) else _name_of(function)
        self._price = _price(cost)
        if callable(self._price) or isinstance(self._price, float):
            self.cost, self.costs_of = self._expected_cost, self._expected_costs
        self._shown: dict[int, dict[str, Any]] = {}
        self._progress: _Progress | None = None

    def _in_flight(self, wanted: int | None) -> int:
        """Return how many requests may be taken out; of a function with effects, what is being called at most."""
        workers = 16 if self._executor is not None else self._workers
        one_each, least = self._size * workers, self._size
        if self._executor is None and (self._run_in == "here" or not self.idempotent):
            return one_each if wanted is None else max(least, min(wanted, one_each))
        return max(least, wanted or 2 * one_each)

    @property
    def at_once(self) -> int:
        """How many requests the function works on at the same time, at most; those that an executor has."""
        return self._most if self._executor is not None else min(self._most, self._size * self._workers)

    def check(self) -> None:
        """Raise `UsageError` if the pool has not what the function is to be given."""
        if not is_choosable(self.driver.choice_pool):
            return
        first = next(iter(self.driver.candidates(1)), None)
        if first is not None and len(first):
            (item,) = read_items(self.driver, [_request_for(int(first[0]))])
            self._given(item)

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Call the function for each request, and put each answer as it comes."""
        if queue_to_label.empty():
            return
        if self._give != "input":  # in one go, since a pool may read its file each time
            self._shown = named_values(self.driver.choice_pool, self.driver.pending().tolist())
        with _Progress(queue_to_label.qsize()) as self._progress:
            if self._run_in == "here" and self._executor is None:
                self._label_here(queue_to_label, serialize_queue)
            else:
                self._dispatcher(queue_to_label, serialize_queue).run()

    def _label_here(self, requests: QueryQueue, answers: LabelQueue) -> None:
        while taken := requests.get_many(self._size):
            begun: list[Request] = []
            try:
                for call in self.calls(taken):
                    begun += call.requests
                    self._call_here(call)
                    self.deliver(answers, call)
            except BaseException:
                give_back(
                    requests, taken if self.idempotent else [request for request in taken if request not in begun]
                )
                raise

    def _call_here(self, call: Call) -> None:
        while True:
            outcomes = self._call(call.inputs._replace(value=copy.deepcopy(call.inputs.value)))
            delay = self.retry_after(call, outcomes)
            if delay is None:
                return
            end = time.monotonic() + delay
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))
                self.driver.safe_point()

    def _dispatcher(self, requests: QueryQueue, answers: LabelQueue) -> Dispatcher:
        return Dispatcher(
            self,
            requests,
            answers,
            self._make_backend,
            size=self._size,
            most=self._most,
            timeout=self._timeout,
            repeatable=self.idempotent,
            safe_point=self.driver.safe_point,
        )

    def _make_backend(self) -> Backend:
        if self._executor is not None:
            return ExecutorBackend(self._call, self._executor)
        if self._run_in == "threads":
            return ThreadBackend(self._call, self._workers)
        return ProcessBackend(self._call, self._workers, self._context, self._timeout)

    # -- the rules of calls ----------------------------------------------------------------------------

    def calls(self, requests: Sequence[Request]) -> list[Call]:
        """Return the calls that these requests are answered by."""
        pairs = [(item.request, self._given(item)) for item in read_items(self.driver, requests, self._shown)]
        calls = []
        for batch in _batches(pairs, self._size) if self._batch else ([pair] for pair in pairs):
            asked, given = [request for request, _ in batch], [item for _, item in batch]
            value = columns(given) if self._batch else given[0]
            seed = self.generator(asked[0].id).initial_seed() % 2**32
            calls.append(Call(asked, Inputs(value, len(batch), seed), given, paid=[0.0] * len(batch)))
        return calls

    def retry_after(self, call: Call, outcomes: Sequence[CallOutcome]) -> float | None:
        """Note a try of a call; return the seconds until the next one, or None after the last, with its `answers`."""
        call.tries += 1
        for place, outcome in enumerate(outcomes):
            paid = self._paid(call.requests[place], call.given[place], outcome)
            call.paid[place] += 1.0 if paid is None else paid
            call.is_priced = call.is_priced and paid is not None
            if outcome.kind in ("infrastructure", "timeout") and not (place and outcome == outcomes[0]):
                self._log(call, place, outcome)
        if any(outcome.again for outcome in outcomes) and call.tries <= self._retries:
            generator = self.generator(f"{call.requests[0].id} {call.tries}")
            jitter = 0.5 + float(torch.rand((), generator=generator))
            return float(min(_LONGEST_WAIT, self._backoff * 2 ** (call.tries - 1))) * jitter
        self.conclude(call, outcomes)
        return None

    def conclude(self, call: Call, outcomes: Sequence[CallOutcome]) -> None:
        """Make these outcomes the answers of a call."""
        # where nobody says what a try costs, one try costs what is expected, and more of them 1 each
        costs: list[float | None] = [*call.paid] if call.is_priced or call.tries > 1 else [None] * len(call.requests)
        call.answers = [
            Label(request, outcome.value, self._source, cost)
            if outcome.kind == "label"
            else Failed(request, outcome.reason, outcome.kind, cost)
            for request, outcome, cost in zip(call.requests, outcomes, costs, strict=True)
        ]

    def deliver(self, answers: LabelQueue, call: Call) -> None:
        """Deliver the answers of a call, in one transaction."""
        if self._progress is not None:
            self._progress.add(call.answers)
        if len(call.answers) == 1:
            answers.put(call.answers[0])
        else:
            answers.put_many(call.answers)

    def _log(self, call: Call, place: int, outcome: CallOutcome) -> None:
        self.logger.info(
            "try %d of request %s: %s, %s%s",
            call.tries, call.requests[place].id[:8], outcome.kind, outcome.reason,
            f"\n{outcome.detail.rstrip()}" if outcome.detail else "",
        )  # fmt: skip

    def _paid(self, request: Request, given: Any, outcome: CallOutcome) -> float | None:
        """Return what a try has cost, or None where nobody says."""
        if outcome.cost is not None:
            return float(outcome.cost)
        if self._price == "seconds":
            return outcome.seconds
        if isinstance(self._price, float):
            return self._price
        if callable(self._price):
            return float(self._price(copy.deepcopy(given)))
        return cost_of(self.driver.choice_pool, request.item)

    def _expected_cost(self, item: Any) -> float:
        """Return what the label of an item is expected to cost."""
        if isinstance(self._price, float):
            return self._price
        (read,) = read_items(self.driver, [_request_for(item)])
        return float(self._price(self._given(read)))

    def _expected_costs(self, samples: torch.Tensor) -> torch.Tensor:
        """Return what the labels of many samples are expected to cost: float64 (n,); the pool is asked once."""
        if isinstance(self._price, float):
            return torch.full((len(samples),), self._price, dtype=torch.float64)
        items = read_items(self.driver, [_request_for(sample) for sample in samples.tolist()])
        return torch.tensor([float(self._price(self._given(item))) for item in items], dtype=torch.float64)

    def _given(self, item: Item) -> Any:
        """Return what the function is given of an item."""
        if self._give == "values" or (self._give == "auto" and item.values):
            named = item.named
            if not named:
                _refuse(
                    "give is 'values', and the data names none; leave it out, so that the function is given the "
                    "learner's input"
                )
            return numbers_of(named)
        if item.input is None:
            _refuse(
                f"the function can't be given an input, since {type(self.driver.choice_pool).__name__} has neither "
                "shown(samples) nor inputs(ids)"
            )
        return item.input


class _Progress:
    """A bar with rate, failures and time left on stderr, where that is a terminal; it appears after a second.

    Parameters
    ----------
    total
        How many requests there are.
    """

    def __init__(self, total: int) -> None:
        self._bar = tqdm(
            desc="labeling", unit="label", total=total, delay=1, leave=False, disable=None, dynamic_ncols=True
        )
        self._failed = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, answers: Sequence[Answer]) -> None:
        """Count answers."""
        self._failed += sum(isinstance(answer, Failed) for answer in answers)
        if self._failed:
            self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self._bar.update(len(answers))


# -- what a function is given ------------------------------------------------------------------------------------


def numbers_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return named values; where all are text, as those of a CSV file, those that are numbers as floats."""
    if not all(isinstance(value, str) for value in values.values()):
        return dict(values)
    return {name: _number(text) for name, text in values.items()}


def columns(inputs: Sequence[Any]) -> Any:
    """Return inputs of the same structure as columns.

    Returns
    -------
    dict, list, tuple or array
        Of mappings a mapping of columns. A column of numbers, or of arrays of one shape, is an array with one row for
        each input; any other is a list.
    """
    first = inputs[0]
    if isinstance(first, Mapping):
        return {key: columns([given_input[key] for given_input in inputs]) for key in first}
    if isinstance(first, tuple | list):
        parts = [columns(part) for part in zip(*inputs, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if isinstance(first, np.ndarray):
        return np.stack(inputs) if len({given_input.shape for given_input in inputs}) == 1 else list(inputs)
    if all(isinstance(given_input, int | float) for given_input in inputs):
        return np.asarray(inputs)
    return list(inputs)


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _structure(given: Any) -> Any:
    """Return what inputs must have in common to be in one batch."""
    if isinstance(given, Mapping):
        return tuple((key, _structure(member)) for key, member in given.items())
    if isinstance(given, tuple | list):
        return (type(given).__name__, *map(_structure, given))
    return "array" if isinstance(given, np.ndarray) else "value"


def _batches(pairs: Sequence[tuple[Request, Any]], size: int) -> Iterator[list[tuple[Request, Any]]]:
    """Yield requests that follow each other and whose inputs are alike, with these, up to so many at a time."""
    for _, alike in itertools.groupby(pairs, lambda pair: _structure(pair[1])):
        while batch := list(itertools.islice(alike, size)):
            yield batch


def _request_for(item: Any) -> Request:
    """Return a request that only stands for an item."""
    return Request("", 0, 0, item)


# -- the parameters ----------------------------------------------------------------------------------------------


def _refuse(fault: str) -> NoReturn:
    raise UsageError(f"FunctionLabelStrategy: {fault}.")


def _check_count(name: str, value: Any, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        _refuse(f"{name} is {value!r}; it must be a whole number of at least {least}")


def _check_seconds(name: str, value: Any, *, above: bool = False) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf or (above and value == 0):
        _refuse(f"{name} is {value!r}; it must be a number of seconds, {'above' if above else 'at least'} 0")


def _function(parameter: str, given: Any) -> Callable[..., Any]:
    """Return the function that a parameter is, or names."""
    if isinstance(given, str):
        given = _imported(parameter, given)
    if not callable(given):
        _refuse(f"{parameter} is a {type(given).__name__}, which can't be called; it must be a function")
    if inspect.iscoroutinefunction(given):
        _refuse(f"{parameter} is a coroutine function; it must return the label itself: call asyncio.run in it")
    return given  # type: ignore[no-any-return]


def _imported(parameter: str, text: str) -> Any:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        _refuse(f"{parameter} is {text!r}; it must be module:name, for instance solver:solve. {_LOOKED_UP[:-1]}")
    try:
        return import_code(text)
    except Exception as error:
        near = ""
        if isinstance(error, AttributeError) and module in sys.modules:
            there = [name for name, value in vars(sys.modules[module]).items() if callable(value) and name[0] != "_"]
            near = f" In {module}, {did_you_mean(name, there)}."
        raise UsageError(
            f"FunctionLabelStrategy: {parameter} {text!r} can't be imported: {reason_of(error)}.{near} {_LOOKED_UP}"
        ) from error


def _exceptions(given: Any) -> tuple[type[BaseException], ...]:
    """Return the exceptions that are named, or given."""
    classes = []
    for exception in [given] if isinstance(given, str | type) else given:
        kind: Any = exception
        if isinstance(exception, str):
            kind = getattr(builtins, exception, None) if ":" not in exception else _imported("infeasible", exception)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            _refuse(f"infeasible has {exception!r}; it must name exceptions: ValueError, or module:Name")
        classes.append(kind)
    return tuple(classes)


def _price(cost: Any) -> Any:
    """Return what a call costs: a number, "seconds", a function of the inputs, or None."""
    if cost is None or cost == "seconds":
        return cost
    if isinstance(cost, int | float) and not isinstance(cost, bool):
        if not 0 <= cost < math.inf:
            _refuse(f"cost is {cost!r}; it must be a number of at least 0")
        return float(cost)
    if isinstance(cost, str) and ":" not in cost:
        _refuse(f"cost is {cost!r}; it must be a number, seconds, or module:name of a function of the inputs")
    return _function("cost", cost)


def _name_of(function: Any) -> str:
    """Return the name of a function, for the source of its labels."""
    function = getattr(function, "func", function)  # of a functools.partial
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}:{owner.__qualname__}"


def _check_processes(call: FunctionCall) -> None:
    """Refuse a function that worker processes can't get, and a script that its worker processes run again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself tells
        _refuse(
            "a worker process is importing the script that started it, and is about to start its own run; put what "
            'starts the run under `if __name__ == "__main__":`'
        )
    name = getattr(call.function, "__qualname__", type(call.function).__name__)
    main = sys.modules.get("__main__")
    if getattr(call.function, "__module__", "") == "__main__" and not hasattr(main, "__file__"):
        _refuse(
            f"{name} was defined in an interactive session, where worker processes can't find it; put it in a module "
            "of its own and import it, or set run_in to 'threads'"
        )
    try:
        ForkingPickler.dumps(call)
    except Exception as error:
        raise UsageError(
            f"FunctionLabelStrategy: {name} can't be sent to worker processes: {type(error).__name__}: {error}. Define "
            "it at the top of a module, without what can't be pickled, or set run_in to 'threads'."
        ) from error
