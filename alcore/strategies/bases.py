"""Base classes of strategies. None of them is required: any object with the methods of a protocol will do."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch

from alcore.codec import export_json
from alcore.errors import UsageError
from alcore.hookspecs import runhook
from alcore.inference.extraction import check_layer, extract_features, labeled_features, labeled_targets, outputs_of
from alcore.inference.features import Features, refuse_non_finite, refuse_non_finite_features
from alcore.inference.streaming import check_scores, subset, top_k
from alcore.outputs.kinds import first_rows
from alcore.plugins.signatures import accepts
from alcore.protocols import EndReason, LabelingContext, QueryQueue, Request, RunContext
from alcore.store.files import WORK
from alcore.store.reading import step_figures

if TYPE_CHECKING:
    import logging


class BaseStrategy:
    """A strategy with access to its run."""

    _driver: RunContext | None = None

    def attach(self, driver: RunContext) -> None:
        """Receive the run, before the first step."""
        self._driver = driver

    @property
    def is_attached(self) -> bool:
        """Whether `attach` was called."""
        return self._driver is not None

    @property
    def driver(self) -> RunContext:
        """The run, as `attach` received it; `UsageError` before that."""
        if self._driver is None:
            raise UsageError(f"{type(self).__name__} has no driver yet; give it to a Driver, or call attach(driver).")
        return self._driver

    @driver.setter
    def driver(self, driver: RunContext) -> None:
        self._driver = driver  # an `attach` of one's own may be `self.driver = driver`

    @property
    def name(self) -> str:
        """The name of this strategy, unique among the strategies of the run."""
        return self.driver.strategy_name(self)

    @property
    def logger(self) -> logging.Logger:
        """A logger that writes to the console log of the run."""
        return self.driver.logger

    @property
    def strategy_dir(self) -> Path:
        """A folder of the run directory for files of this strategy; made when first asked for."""
        folder = self.driver.log_dir / "strategies" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def work_dir(self) -> Path:
        """A folder in `strategy_dir` in which programs of the user work; made when first asked for.

        Links in it may lead anywhere, and don't keep the run from going on. So what reads here follows no link.
        """
        folder = self.strategy_dir / WORK
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def checkpoint_dir(self) -> Path:
        """A folder in `strategy_dir` for checkpoints that the strategy writes itself; made when first asked for.

        What `state_dict` returns is part of the run's checkpoints, and needs no file.
        """
        folder = self.strategy_dir / "checkpoints"
        folder.mkdir(exist_ok=True)
        return folder

    def generator(self, purpose: str = "") -> torch.Generator:
        """Return a fresh generator derived from run seed, step, phase, the name of this strategy and the purpose."""
        return self.driver.generator(self.name, purpose)

    def state_dict(self) -> Mapping[str, Any]:
        """Return what the strategy must have back after an interruption, beside its constructor's arguments."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        if state:
            raise UsageError(f"{type(self).__name__} was saved with state, and has no load_state_dict to take it back.")


class BaseQuery(BaseStrategy):
    """A query strategy; implement ``sample(query_queue, *args, **kwargs)``."""

    max_samples: int
    """How many samples to ask for in a step; see `set_max_samples`."""

    weighs_costs: bool = False
    """Whether it chooses by score per expected cost where the run wants that (``DriverConfig.per_cost``)."""

    @property
    def wanted(self) -> int:
        """How many samples to ask for in this step: `max_samples`, or a share of ``DriverConfig.samples_per_step``."""
        try:
            max_samples = self.max_samples
        except AttributeError as error:
            raise UsageError(
                f"{type(self).__name__} has no max_samples; call self.set_max_samples(n) in its __init__, or give the "
                "class an attribute max_samples."
            ) from error
        return self.driver.wanted(max_samples)

    def set_max_samples(self, max_samples: int) -> None:
        """Set `max_samples`; `UsageError` for a negative number."""
        if max_samples < 0:
            raise UsageError(f"{type(self).__name__}: max_samples is {max_samples}; it must not be negative.")
        self.max_samples = max_samples


class BaseLabel(BaseStrategy):
    """A label strategy; implement ``label(queue_to_label, serialize_queue, *args, **kwargs)``."""

    def take_told(self) -> list[Request]:
        """Take in what was told to the run meanwhile; return the requests in hand that need no answer any more.

        For a strategy that works for long (`alcore.protocols.LabelingContext`).
        """
        return cast(LabelingContext, self.driver).take_told()


class BaseMetrology(BaseStrategy):
    """A metrology strategy; implement ``compute(*args, **kwargs)``, and call `append_record` or `append` in it."""

    records: list[Any]
    """What was measured, the oldest first."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make the list of records, also for a class whose ``__init__`` doesn't call this one's."""
        made = super().__new__(cls)
        made.records = []
        return made

    def __init__(self) -> None:
        self.records = []

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.records)

    def __bool__(self) -> bool:
        """Return True: a strategy without records is one all the same."""
        return True

    def append(self, record: Any) -> None:
        """Append a record as it is: numbers, text, tensors, arrays, and lists, tuples or dicts of these."""
        self.records.append(record)

    def reset(self) -> None:
        """Begin the records anew; those of a run that were committed stay in its database and its exports."""
        self.records = []

    def append_record(self, **values: Any) -> None:
        """Append a record: the step, the number of training samples, then `values`."""
        self.records.append(
            {
                "step": self.driver.active_learning_step_idx,
                "train_samples": len(self.driver.train_datapool),
                **values,
            }
        )

    def serialize_records(self, path: str | Path | None = None, *args: Any, **kwargs: Any) -> None:
        """Write the records as JSON to `path`; without a path do nothing, since the run exports them.

        Parameters
        ----------
        path
            File to write.
        *args, **kwargs
            Arguments of the run's call; not used.
        """
        if path is not None:
            Path(path).write_text(export_json(self.records), encoding="utf-8")


class PointwiseQuery(BaseQuery):
    """A query strategy that scores each sample independently of the others; implement ``score(outputs)``.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.

    Notes
    -----
    Where the run chooses by score per cost (``DriverConfig.per_cost``), `worth` of the score is divided by what the
    label is expected to cost.

    The pool is streamed: memory is O(chunk + max_samples), whatever its size. Of equal scores the lowest sample ids
    are taken.
    """

    weighs_costs = True
    max_samples = 10  # for a class whose `__init__` doesn't call this one's

    def __init__(self, max_samples: int = 10) -> None:
        self.set_max_samples(max_samples)

    def infer(self, inputs: Any) -> Any:
        """Return the outputs that `score` is given; the learner's, unless a strategy overrides this method.

        Parameters
        ----------
        inputs
            A batch of the pool's inputs, not yet on the learner's device.
        """
        return self.driver.infer(inputs)

    def score(self, outputs: Any) -> torch.Tensor:
        """Return the score of each sample: shape (B,); samples with the highest scores are asked for.

        Parameters
        ----------
        outputs
            What the learner (or ``inference_fn``) returned for B samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement score(outputs) -> tensor (B,)")

    def estimate(self, outputs: Any) -> tuple[torch.Tensor, float] | None:
        """Return a cheap estimate of the scores with a bound of its error, or None, the default, for no estimate.

        A strategy whose exact score is slow can override this method: then only samples that may be among the best are
        scored exactly.

        Parameters
        ----------
        outputs
            As in `score`.

        Returns
        -------
        tuple or None
            Estimates (B,), NaN where the score is NaN, and the largest difference between an estimate and its score.
        """
        del outputs
        return None

    def worth(self, outputs: Any) -> torch.Tensor:
        """Return what a label of each sample is worth, in the order of the scores and not negative: shape (B,).

        The scores, unless a strategy overrides this method. Called in place of `score` where the run chooses by score
        per cost: a label of twice the worth may cost twice as much.
        """
        return self.score(outputs)

    def check(self) -> None:
        """Raise `UsageError` if the strategy can't work with this pool or with the learner's outputs."""
        outputs = self.driver.probe(self.infer)
        if outputs is None:
            return
        n = len(next(self.driver.candidates(2)))
        try:
            check_scores(self.score(first_rows(outputs, n, n)), n)
        except UsageError:
            raise
        except Exception as error:
            shape = f" of shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else ""
            raise UsageError(
                f"its score() can't take the learner's outputs{shape}: {type(error).__name__}: {error}. "
                "alcore.outputs.class_probabilities brings any classifier's outputs to (B, C)."
            ) from error

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the `max_samples` candidates with the highest scores, best first; or scores per cost."""
        best = top_k(self.driver, self.score, self.wanted, self.infer, self.estimate, worth=self.worth)
        query_queue.put_many(best.ids.tolist(), best.scores.tolist())


class SetQuery(BaseQuery):
    """A query strategy that chooses a set of samples; implement ``choose(candidates, labeled, n, pending=None)``.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Features of a sample: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, otherwise the dotted
        name of a submodule of the learner; see `alcore.inference.extract_features`.

    Notes
    -----
    Features and outputs of all N samples to choose from are held in memory: O(N D).

    Samples that were asked for and have no answer yet, in earlier steps or by other strategies of this step, are no
    candidates. A strategy whose `choose` has the argument ``pending`` is given them too, so that it doesn't ask for
    their like once more; one without it is called without it. Likewise with ``costs``: what the labels of the
    candidates are expected to cost, float64 (N,), where the run chooses by score per cost, else None.
    """

    # for a class whose `__init__` doesn't call this one's
    max_samples = 10
    candidates: int | float | None = None
    layer = ""

    needs_labeled = True
    """Whether `choose` uses the labeled samples."""

    needs_features = True
    """Whether `choose` uses features. If not, memory is O(N C), and labeled samples come with their targets alone."""

    needs_outputs = True
    """Whether `choose` uses outputs. If not, they have shape (N, 0), and the learner is not called for the inputs."""

    def __init__(self, max_samples: int = 10, candidates: int | float | None = None, layer: str = "") -> None:
        self.set_max_samples(max_samples)
        count = isinstance(candidates, int)
        if candidates is not None and not (candidates >= 1 if count else 0 < candidates <= 1):
            raise UsageError(
                f"{type(self).__name__}: candidates is {candidates!r}; it must be a count of at least 1, or a fraction "
                "above 0 and up to 1."
            )
        self.candidates, self.layer = candidates, layer

    @functools.cached_property
    def takes_pending(self) -> bool:
        """Whether `choose` has the argument ``pending``."""
        return accepts(self.choose, "pending")

    @property
    def weighs_costs(self) -> bool:  # type: ignore[override]
        """Whether `choose` has the argument ``costs``."""
        return accepts(self.choose, "costs")

    def choose(
        self, candidates: Features, labeled: Features, n: int
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return which samples to ask for, best first.

        It may have a fourth argument, ``pending=None``: the samples that were asked for and have no answer yet,
        ascending by id and without targets, as candidates otherwise. They count as chosen.

        Parameters
        ----------
        candidates
            N unlabeled samples, ascending by id.
        labeled
            The labeled samples in training order; empty where `needs_labeled` is False.
        n
            How many to choose: at least 1, at most N.

        Returns
        -------
        torch.Tensor or tuple
            Positions among the candidates: int64 (k,), k <= n, each once; or these and their scores (k,).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement choose(candidates, labeled, n) -> positions")

    def check(self) -> None:
        """Raise `UsageError` if the learner can't take the pool's inputs, or does not have the layer."""
        self.driver.probe()
        if self.needs_features:
            check_layer(self.driver, self.layer)

    def gather(self, ids: torch.Tensor) -> Features:
        """Return what `choose` is given as candidates, for these ascending ids."""
        if not self.needs_features:
            return outputs_of(self.driver, ids)
        return extract_features(self.driver, ids, self.layer, outputs=self.needs_outputs)

    def gather_pending(self) -> Features | None:
        """Return what `choose` is given as pending samples; None if there are none."""
        ids = self.driver.pending()
        if not len(ids):
            return None
        pending = self.gather(ids)
        refuse_non_finite(pending)
        return pending

    def _gather_labeled(self) -> Features:
        if not self.needs_features:
            return labeled_targets(self.driver)
        return labeled_features(self.driver, self.layer, outputs=self.needs_outputs)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the samples that `choose` returns."""
        ids = subset(self.driver, self.candidates, self.generator("candidates"))
        n = min(self.wanted, len(ids))
        if not n:
            return
        candidates = self.gather(ids)
        none = candidates.take(slice(0))  # with the same number of features
        labeled = self._gather_labeled() if self.needs_labeled else none
        labeled = labeled if len(labeled.ids) else none
        refuse_non_finite(candidates)
        refuse_non_finite_features(labeled)
        more: dict[str, Any] = {"pending": self.gather_pending() or none} if self.takes_pending else {}
        if self.weighs_costs:
            more["costs"] = self.driver.costs(ids)
        chosen = self.choose(candidates, labeled, n, **more)
        positions, scores = chosen if isinstance(chosen, tuple) else (chosen, None)
        query_queue.put_many(ids[positions].tolist(), None if scores is None else scores.tolist())


class Tracked(NamedTuple):
    """What a step is known by, as a tracker writes it down.

    Parameters
    ----------
    step
        Its number.
    labels
        Labeled samples that it trained on.
    cost
        What had been paid for labels and failed attempts before it.
    values
        What was measured, ``STRATEGY.METRIC``, the losses, ``loss.NAME``, and how many samples were ``requested``,
        ``labeled``, ``failed`` and ``refused``; the same in every run of the experiment.
    seconds
        How long each phase took, by its name.
    """

    step: int
    labels: int
    cost: float
    values: Mapping[str, float]
    seconds: Mapping[str, float]


class BaseTracker:
    """An observer that writes each step down elsewhere; implement ``write(tracked)``.

    Each step is written once, in a run that was interrupted and resumed too: `begin` is called with the first step that
    comes next, and removes what may have been written of it and of later ones. What can't be written, since a server is
    down for instance, is warned of once and tried again with the next step.
    """

    _driver: RunContext | None = None
    _begun = False
    _last = -1
    _reported = ""
    _waiting: tuple[Tracked, ...] = ()

    @property
    def driver(self) -> RunContext:
        """The run that is written down."""
        if self._driver is None:
            raise UsageError(f"{type(self).__name__} has no driver yet; give it to a Driver, in the list `plugins`.")
        return self._driver

    def begin(self, step: int, labels: int, cost: float) -> None:
        """Open what is written to, and remove what it has of this step, with these labels and cost, and of later ones.

        Called before the first step is written since the run began or was resumed, and again if it failed.
        """

    def write(self, tracked: Tracked) -> None:
        """Write a step down."""
        raise NotImplementedError(f"{type(self).__name__} must implement write(tracked)")

    def finish(self, reason: EndReason | None, error: BaseException | None) -> None:
        """Close what is written to; called when the run ends, with its reason, or with the error that ended it.

        Not called where nothing could be written.
        """

    def state_dict(self) -> Mapping[str, Any]:
        """Return the last step written; with a state, a resumed run calls it again for the step it goes on from."""
        return {"step": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._last = state["step"]

    @runhook
    def alcore_run_start(self, driver: RunContext) -> None:
        """Receive the run."""
        self._driver, self._begun, self._waiting, self._reported = driver, False, (), ""

    @runhook
    def alcore_step_end(self, driver: RunContext, record: Mapping[str, Any]) -> None:
        """Write the step down."""
        counts = {name: record[name] for name in ("requested", "labeled", "failed", "refused")}
        self._driver, self._last = driver, record["step"]
        self._write(record["train_samples"] or 0, {**step_figures(record), **counts}, record["seconds"])

    @runhook
    def alcore_run_end(self, driver: RunContext, reason: EndReason | None, error: BaseException | None) -> None:
        """Write down what was measured after the last step, and end."""
        self._driver = driver
        step = driver.active_learning_step_idx
        records = {
            driver.strategy_name(strategy): [
                record for record in strategy.records if isinstance(record, Mapping) and record.get("step") == step
            ]
            for strategy in driver.metrology_strategies
        }
        measured = step_figures({"metrics": records})
        if error is None and measured and step > self._last:
            self._last = step
            self._write(len(driver.train_datapool), measured, {})
        elif self._waiting:
            self._write_waiting()
        if self._begun:
            self.finish(reason, error)

    def _write(self, labels: int, values: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        self._waiting += (Tracked(self._last, labels, self.driver.spent().cost, values, seconds),)
        self._write_waiting()

    def _write_waiting(self) -> None:
        try:
            if not self._begun:
                self.begin(*self._waiting[0][:3])
                self._begun = True
            while self._waiting:
                self.write(self._waiting[0])
                self._waiting = self._waiting[1:]
            self._reported = ""
        except Exception as error:
            reported = f"{type(error).__name__}: {error}"
            if reported != self._reported:
                self._reported = reported
                raise
