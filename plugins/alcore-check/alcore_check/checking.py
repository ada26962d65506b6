"""Check an experiment before a campaign: one training, one query, one label, one checkpoint, and what all will take."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import queue
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from alcore import Driver, Label, runhook
from alcore.errors import AlcoreError, Waiting, message_of
from alcore.experiment import Experiment, build, resolve
from alcore.inference import model_digest, subset
from alcore.plugins import Registry
from alcore.pools import offers_parts
from alcore.protocols import Phase
from alcore.store import Run, loads, parse_retention
from alcore.strategies import labels_by_id, most_at_once
from alcore_check.timing import BatchTimer, training_time

_QUICK = 10.0  # seconds of a phase that is tried a second time, since the first time may be slow
_PRICED = 1000  # candidates whose expected costs are looked at


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a whole campaign will take, from what one step took.

    Parameters
    ----------
    steps, labels
        How many steps and labels.
    computing
        Seconds of training, measuring and choosing in all steps. An epoch is taken to grow with its batches.
    labeling
        Seconds of all labels, as many at the same time as the label strategy says; None where no label was bought.
    cost
        What the labels cost. Each costs what the one did that was bought; where expected costs are known, their mean
        over candidates, times what that one cost over what it was expected to.
    bytes
        Of the run directory at its end.
    """

    steps: int
    labels: int
    computing: float
    labeling: float | None
    cost: float
    bytes: int


@dataclasses.dataclass
class Check:
    """What a check found.

    Attributes
    ----------
    run_id, folder
        The run that was begun, with which the campaign goes on.
    names_code : bool
        Whether it names the user's own code, so that ``alcore resume`` needs ``--allow-code``.
    seconds : dict
        Of wall time: ``start``, ``training``, ``metrology``, ``query``, ``label`` and ``resume``, as far as they came.
    repeated : dict
        Of ``metrology`` and ``query``: seconds of a second time, in which no library loads itself.
    rehearsed : bool
        Whether training, metrology and query are of a rehearsal that is not kept, since nothing is labeled yet.
    labeled : int
        Labeled samples that were trained on.
    asked, candidates : int
        Samples that were asked for in a step, and how many there were to choose from.
    metrics : dict
        What was measured, by strategy.
    label : object or None
        The label that was bought, as the run keeps it, as text.
    cost : float or None
        What it cost; where none was bought, what one is expected to cost.
    expected : float or None
        What it was expected to cost.
    at_once : int or None
        How many requests the label strategy works on at the same time, at most; None where it doesn't tell.
    checkpoint : int
        Bytes of the largest checkpoint.
    peak : int or None
        Bytes of memory that this process used at most, where the system tells.
    free : int
        Bytes that are free where the run directory is.
    forecast : Forecast or None
        None where a part failed, or the number of steps is not limited.
    faults : list of str
        What would end the campaign.
    notes : list of str
        What is worth knowing before it.
    """

    run_id: str
    folder: Path
    names_code: bool = False
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    repeated: dict[str, float] = dataclasses.field(default_factory=dict)
    rehearsed: bool = False
    labeled: int = 0
    asked: int = 0
    candidates: int = 0
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    label: str | None = None
    cost: float | None = None
    expected: float | None = None
    at_once: int | None = None
    checkpoint: int = 0
    peak: int | None = None
    free: int = 0
    forecast: Forecast | None = None
    faults: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def check_experiment(
    experiment: Experiment,
    registry: Registry,
    *,
    run_id: str | None = None,
    allow_code: bool = False,
    with_label: bool = True,
) -> Check:
    """Begin the run of an experiment, and stop after the first label of its first step.

    Training, metrology, query and labeling are those of the run, which `Driver.restore` or ``alcore resume`` goes on
    with as if it had not stopped. Where nothing is labeled at the start, there is nothing to train on yet; then a
    rehearsal in a temporary folder, whose labels are all equal to the one that was bought, tries the other phases.
    Last, a copy of the run is restored.

    Parameters
    ----------
    experiment
        What is to be run; it is not changed.
    registry
        The plugins.
    run_id
        The id of the run; made up if it is None.
    allow_code
        Whether code that the experiment file names may be imported.
    with_label
        Whether to buy a label.

    Raises
    ------
    UsageError
        When the parts don't fit together. Nothing has been trained or bought then, and there is no run.
    """
    clock = _Clock()

    def make(identity: str | None, root: Path | None = None, **driver_table: Any) -> Driver:
        here = copy.deepcopy(experiment)
        here.settings["driver"] |= driver_table | ({} if root is None else {"root_log_dir": str(root)})
        if identity is None and root is not None:  # a rehearsal, which no tracker is to write down
            here.parts["observe"] = []
        return build(resolve(here, registry, allow_code=allow_code), run_id=identity, observers=[clock])

    began = time.perf_counter()
    driver = make(run_id)
    result = Check(driver.run_id, driver.log_dir, driver.names_code)
    result.at_once = most_at_once(driver.label_strategy)
    returned = _ask_for(driver, 1 if with_label else 0)
    ended = _run_steps(driver, 1, clock, result)
    result.seconds["start"] = clock.began - began
    if not ended:
        result.seconds |= clock.take()
    else:
        _read_run(result, driver, clock.take(), returned=bool(returned))
        with tempfile.TemporaryDirectory(prefix="alcore-check-") as temporary:
            if not result.labeled and driver.trains:
                _rehearse(result, make(None, Path(temporary), max_active_learning_steps=2, final_training=False), clock)
            if not result.faults:
                _restore_copy(result, driver, make(driver.run_id, Path(temporary)))
    result.peak = _peak()
    if not result.faults:
        result.forecast = _forecast(result, driver, clock.batches)
        if result.forecast is not None:
            result.faults += _out_of_reach(result.forecast, result)
    return result


# -- the run, up to its first label, and its rehearsal ---------------------------------------------------------


class _Clock:
    """Notes when the first phase began, which was the last one, and how long each took."""

    def __init__(self) -> None:
        self.began, self.phase = math.inf, ""
        self.batches = BatchTimer()
        self._seconds: dict[str, float] = {}
        self._start = 0.0

    @runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        """Note that a phase begins."""
        if phase == Phase.TRAINING:
            self.batches.start(driver.learner)
        self.phase, self._start = str(phase), time.perf_counter()
        self.began = min(self.began, self._start)

    @runhook
    def alcore_phase_end(self, phase: Phase) -> None:
        """Note how long it took."""
        self.batches.stop()
        self._seconds[str(phase)] = time.perf_counter() - self._start

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call."""
        taken, self._seconds = self._seconds, {}
        return taken


def _ask_for(driver: Driver, most: int) -> list[None]:
    """Stop after `most` answers of the label strategy, so that the run ends inside its step.

    Returns
    -------
    list
        Empty until the strategy has returned by itself.
    """
    returned: list[None] = []

    def label_some(queue_to_label: Any, serialize_queue: Any) -> None:
        if most:
            driver.label_strategy.label(_FirstOf(queue_to_label, most), serialize_queue)
        returned.append(None)
        raise Waiting("the check is done")

    driver.label_with(label_some)
    return returned


def _answer_with(driver: Driver, value: Any) -> None:
    """Let every request be answered with one value, without the work of the label strategy."""

    def label_all(queue_to_label: Any, serialize_queue: Any) -> None:
        requests = queue_to_label.get_many(queue_to_label.qsize())
        serialize_queue.put_many(Label(request, value) for request in requests)

    driver.label_with(label_all)


class _FirstOf:
    """The query queue, as if it held a few requests alone."""

    def __init__(self, queue: Any, most: int) -> None:
        self._queue, self._left = queue, most

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self._taken(self._queue.get, block, timeout)

    def get_nowait(self) -> Any:
        return self.get()

    def get_request(self) -> Any:
        return self._taken(self._queue.get_request)

    def get_many(self, n: int) -> list[Any]:
        requests: list[Any] = self._queue.get_many(min(n, self._left))
        self._left -= len(requests)
        return requests

    def give_back(self, request: Any) -> None:
        self._queue.give_back(request)
        self._left += 1

    def empty(self) -> bool:
        return not self.qsize()

    def qsize(self) -> int:
        return min(self._left, int(self._queue.qsize()))

    def _taken(self, get: Any, *args: Any) -> Any:
        if not self._left:
            raise queue.Empty
        item = get(*args)
        self._left -= 1
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


def _run_steps(driver: Driver, count: int, clock: _Clock, result: Check) -> bool:
    """Run up to so many steps; an error inside a phase is a fault, and any other one is raised."""
    try:
        with driver.session():
            for _ in range(count):
                if driver.stop_reason is None:
                    driver.active_learning_step()
    except Exception as error:
        if not clock.phase:
            raise
        text = message_of(error) if isinstance(error, AlcoreError) else f"{type(error).__name__}: {error}"
        result.faults.append(f"{clock.phase} fails: {text}")
        return False
    return True


def _read_run(result: Check, driver: Driver, seconds: dict[str, float], *, returned: bool) -> None:
    """Note what became of the first step; `returned` is whether its label strategy returned by itself."""
    run = Run(driver.log_dir)
    _note(result, run, seconds)
    requests = run.requests()
    result.asked = len(requests)
    result.candidates = sum(map(len, driver.candidates())) + len(requests)
    if Phase.TRAINING in seconds:
        result.labeled = len(driver.train_datapool)
    if requests:
        result.cost = result.expected = statistics.fmean(state.asked.cost for state in run.states())
    if driver.end_reason is not None and driver.end_reason.kind.status != "waiting":
        result.faults.append(f"the run ends in its first step: {driver.stop_reason}")
        return
    if not requests:
        result.faults.append("the first step asks for nothing; look at the query strategies and their max_samples")
        return
    answered = [request for request in requests if request["state"] == "labeled"]
    if answered:
        result.label, result.cost = run.label_text(answered[0]), answered[0]["cost"]
        result.expected = {state.asked.request.id: state.asked.cost for state in run.states()}[answered[0]["id"]]
        result.seconds["label"] = seconds[Phase.LABELING]
    failed = [refusal for refusal in run.reasons() if refusal["kind"] != "dropped"]
    result.faults += [f"the label fails: {refusal['kind']}: {refusal['reason']}" for refusal in failed]
    if not answered and not failed and not returned:
        result.notes.append(f"no label has come yet, so nothing is known of labeling: {driver.stop_reason}")


def _note(result: Check, run: Run, seconds: dict[str, float]) -> None:
    """Note what was measured, how long each phase but labeling took, and how large checkpoints are."""
    result.metrics = {strategy: values[-1] for strategy, values in run.records().items() if values}
    result.checkpoint = max([result.checkpoint, *(checkpoint["bytes"] for checkpoint in run.checkpoints())])
    result.seconds |= {name: taken for name, taken in seconds.items() if name != Phase.LABELING}


def _rehearse(result: Check, driver: Driver, clock: _Clock) -> None:
    """Try training, metrology and query with made-up labels, in a run that is not kept."""
    if not labels_by_id(driver.label_strategy):  # such a one costs nothing
        value = _made_up(result, driver)
        if value is None:
            result.notes.append("training, metrology and query were not tried: nothing is labeled")
            return
        _answer_with(driver, value)
    if not _run_steps(driver, 2, clock, result):
        result.faults[-1] += " (seen in a rehearsal, with labels that are all equal)"
        return
    run = Run(driver.log_dir)
    _note(result, run, clock.take())
    result.rehearsed, result.labeled, result.asked = True, len(run.requests(0)), len(run.requests(1))


def _made_up(result: Check, driver: Driver) -> Any:
    """Return a label for a rehearsal: the one that was bought, else a class, or zeros; None where nobody knows one."""
    if result.label is not None:
        return loads(result.label)
    if driver.info is None:
        return None
    if driver.info.task == "classification":
        return 0
    if driver.info.target_shape:
        return torch.zeros(driver.info.target_shape)
    outputs = driver.probe()
    if not isinstance(outputs, torch.Tensor):
        return None
    return 0.0 if outputs.dim() < 2 or outputs.shape[1:] == (1,) else torch.zeros(outputs.shape[1:])


def _restore_copy(result: Check, driver: Driver, other: Driver) -> None:
    """Restore a copy of the run with fresh parts, as ``alcore resume`` does, and compare the learners."""
    shutil.copytree(driver.log_dir, other.log_dir, symlinks=True)  # a link of the user's program may lead anywhere
    began = time.perf_counter()
    try:
        other.restore(in_doubt="ask")
        result.seconds["resume"] = time.perf_counter() - began
        same = model_digest(other.learner) == model_digest(driver.learner)
        with other.session():
            pass
        _repeat(result, other)
    except AlcoreError as error:
        result.faults.append(f"the run can't be resumed: {message_of(error)}")
        return
    if not same:
        result.faults.append("a resumed run has another learner: its weights differ from those before")


def _repeat(result: Check, driver: Driver) -> None:
    """Measure and choose once more in a copy of the run, where that is quick, and note how long it took."""
    driver.logger.setLevel(logging.ERROR)  # its warnings are those of the run
    acts: dict[str, Any] = {
        "metrology": lambda: [strategy.compute() for strategy in driver.metrology_strategies],
        "query": driver.choose,
    }
    for phase, act in acts.items():
        if 0 < result.seconds.get(phase, 0.0) < _QUICK and not result.rehearsed:
            began = time.perf_counter()
            with contextlib.suppress(Exception):  # a strategy may refuse to do so twice in a step
                act()
                result.repeated[phase] = min(time.perf_counter() - began, result.seconds[phase])


# -- what all will take ----------------------------------------------------------------------------------------


def _forecast(result: Check, driver: Driver, timer: BatchTimer) -> Forecast | None:
    """Return what the campaign will take; None where its number of steps isn't limited."""
    steps = driver.config.max_active_learning_steps
    if steps is None or not result.asked:
        return None
    expected = _cost_of_a_label(result, driver)
    first = result.labeled if result.rehearsed else result.asked  # what a cold start asks for, where there is one
    pool = driver.choice_pool  # each step may look at others
    most = pool.total if offers_parts(pool) else result.candidates
    labels = min(first + (steps - 1) * result.asked, most)
    if driver.config.budget is not None and expected:
        labels = min(labels, int(driver.config.budget / expected))
    needed = 1 + max(0, math.ceil((labels - first) / result.asked))
    start = max(result.labeled, 1)
    trainings = needed - result.rehearsed + driver.config.final_training  # the first step of a cold start has none
    training = driver.training_config
    seconds = 0.0
    if training is not None and "training" in result.seconds:
        lasts = training_time(timer, result.seconds["training"], start, driver.batch_size, training.epochs)
        bought = labels - first if result.rehearsed else labels
        seconds = sum(
            lasts(training_number, start + min(training_number * result.asked, bought))
            for training_number in range(trainings)
        )
    each = sum(result.repeated.get(phase, result.seconds.get(phase, 0.0)) for phase in ("metrology", "query"))
    kept = _checkpoints(driver, trainings)
    value = 0 if result.label is None else len(result.label)
    at_once = result.at_once or 1
    in_turn = min(labels, math.ceil(first / at_once) + (needed - 1) * math.ceil(result.asked / at_once))
    return Forecast(
        steps=needed,
        labels=labels,
        computing=seconds + each * needed,
        labeling=result.seconds["label"] * in_turn if "label" in result.seconds else None,
        cost=expected * labels,
        bytes=kept * result.checkpoint + labels * value + _size(result.folder),
    )


def _cost_of_a_label(result: Check, driver: Driver) -> float:
    """Return what labels cost on average: as this one did, or, where costs are expected, as they differ from its."""
    costs = driver.expected_costs
    paid = 1.0 if result.cost is None else result.cost
    if not costs.are_known or result.expected is None:
        return paid
    some = subset(driver, _PRICED, driver.generator("costs"))
    if not len(some):
        return paid
    mean = float(costs.of_samples(some, result.expected).mean())
    return mean * paid / result.expected if result.expected else mean


def _checkpoints(driver: Driver, trainings: int) -> int:
    """Return how many checkpoints are kept, at most: with the first, and one inside the step under way."""
    rules = parse_retention(driver.config.keep)
    if rules is not None:
        some = rules.last + (rules.best is not None) + (trainings // rules.every if rules.every else 0)
        return min(trainings, some) + 2
    between, training = driver.config.model_checkpoint_frequency, driver.training_config
    inside = training.max_training_epochs // between if between and training is not None else 0
    return trainings * (1 + inside) + 1


def _out_of_reach(forecast: Forecast, result: Check) -> Iterator[str]:
    """Yield what the campaign needs and there isn't."""
    result.free = shutil.disk_usage(result.folder).free
    if forecast.bytes > result.free:
        yield (
            f"the run directory will need {forecast.bytes / 2**30:.1f} GiB, and {result.free / 2**30:.1f} GiB are free "
            "there; keep fewer checkpoints, with --keep last=3 for instance"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _peak() -> int | None:
    """Return the bytes of memory that this process used at most; None where the system doesn't tell."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
