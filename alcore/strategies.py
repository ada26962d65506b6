"""Base classes that save a strategy some typing; none of them is required."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alcore.errors import UsageError
from alcore.inference import streaming as scoring
from alcore.inference.extraction import Embedded, check_layer, embed, embed_labelled, embed_outputs, embed_targets
from alcore.inference.features import refuse_non_finite, refuse_non_finite_features
from alcore.inference.outputs import first_rows

if TYPE_CHECKING:
    import logging

    from alcore.driver import Driver
    from alcore.protocols import QueryQueue


class BaseStrategy:
    """A strategy that knows its driver."""

    _driver: Driver | None = None

    def attach(self, driver: Driver) -> None:
        """Receive the driver, before the first step."""
        self._driver = driver

    @property
    def is_attached(self) -> bool:
        """Whether a driver was attached."""
        return self._driver is not None

    @property
    def driver(self) -> Driver:
        """The driver; `UsageError` before one is attached."""
        if self._driver is None:
            raise UsageError(f"{type(self).__name__} has no driver yet; give it to a Driver, or call attach(driver).")
        return self._driver

    @property
    def name(self) -> str:
        """The name of this strategy in the run, unique among the strategies of its driver."""
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

    def generator(self, purpose: str = "") -> torch.Generator:
        """Return a fresh generator that depends on run seed, step, phase, this strategy and the purpose alone."""
        return self.driver.generator(self.name, purpose)

    def state_dict(self) -> Mapping[str, Any]:
        """Return what must survive an interruption beside the constructor's arguments."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        if state:
            raise UsageError(f"{type(self).__name__} was saved with state but has no load_state_dict to take it back.")


class BaseQuery(BaseStrategy):
    """A query strategy; implement ``sample(query_queue, *args, **kwargs)``."""

    max_samples: int

    @property
    def wanted(self) -> int:
        """How many samples to ask for now: ``max_samples``, or this strategy's share of ``samples_per_step``."""
        return self.driver.wanted(self.max_samples)

    def _set_max_samples(self, max_samples: int) -> None:
        if max_samples < 0:
            raise UsageError(f"{type(self).__name__}: max_samples is {max_samples}; it must not be negative.")
        self.max_samples = max_samples


class BaseLabel(BaseStrategy):
    """A label strategy; implement ``label(queue_to_label, serialize_queue, *args, **kwargs)``."""


class BaseMetrology(BaseStrategy):
    """A metrology strategy; implement ``compute(*args, **kwargs)`` and call `append_record` in it."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append_record(self, **values: Any) -> None:
        """Add a record, with the step and the number of training samples before what is given."""
        self.records.append(
            {
                "step": self.driver.active_learning_step_idx,
                "train_samples": len(self.driver.train_datapool),
                **values,
            }
        )

    def serialize_records(self, path: str | Path | None = None, *args: Any, **kwargs: Any) -> None:
        """Write the records as JSON to `path`; without one do nothing, since the driver exports them.

        Parameters
        ----------
        path
            File to write.
        *args, **kwargs
            What the driver passes on; not used.
        """
        if path is not None:
            from alcore.codec import export_json

            Path(path).write_text(export_json(self.records), encoding="utf-8")


class PointwiseQuery(BaseQuery):
    """A query strategy that scores each sample by itself; implement ``score(outputs)``.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.

    Notes
    -----
    The pool is streamed: memory is O(chunk + max_samples), whatever its size. Equal scores go by sample id.
    """

    def __init__(self, max_samples: int = 10) -> None:
        self._set_max_samples(max_samples)

    def infer(self, inputs: Any) -> Any:
        """Return the outputs that `score` gets; the learner's, unless a strategy overrides it.

        Parameters
        ----------
        inputs
            A batch of the pool's inputs, not yet on the learner's device.
        """
        return self.driver.infer(inputs)

    def score(self, outputs: Any) -> torch.Tensor:
        """Return how much each sample is worth asking for: shape (B,), higher first.

        Parameters
        ----------
        outputs
            What the learner (or ``inference_fn``) returned for B samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement score(outputs) -> tensor (B,)")

    def estimate(self, outputs: Any) -> tuple[torch.Tensor, float] | None:
        """Return a cheap estimate of the scores and the most it can be wrong by; None, the default, for no estimate.

        A strategy whose exact score is slow can override this: only samples that may be among the best are scored.

        Parameters
        ----------
        outputs
            As in `score`.

        Returns
        -------
        tuple or None
            Estimates (B,), NaN where the score is NaN, and a number that none of them is further from its score.
        """
        del outputs
        return None

    def check(self) -> None:
        """Refuse a pool or outputs that this strategy can't work with, before anything is trained."""
        outputs = self.driver.probe(self.infer)
        if outputs is None:
            return
        n = len(next(self.driver.candidates(2)))
        try:
            scoring.check_scores(self.score(first_rows(outputs, n, n)), n)
        except UsageError:
            raise
        except Exception as error:
            shape = f" of shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else ""
            raise UsageError(
                f"its score() can't take the learner's outputs{shape}: {type(error).__name__}: {error}. "
                "alcore.inference.outputs.class_probabilities brings any classifier's outputs to (B, C)."
            ) from error

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the `max_samples` candidates with the highest scores, best first."""
        best = scoring.top_k(self.driver, self.score, self.wanted, self.infer, self.estimate)
        query_queue.put_many(best.ids.tolist(), best.scores.tolist())


class SetQuery(BaseQuery):
    """A query strategy that looks at samples together; implement ``choose(candidates, labelled, n)``.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabelled samples to look at, drawn at random at each step; a float is a fraction of them, and
        None looks at all.
    layer
        What describes a sample: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, else the dotted
        name of a submodule of the learner; see `alcore.inference.extraction.embed`.

    Notes
    -----
    Features and outputs of what is looked at are held in memory: O(N D).
    """

    needs_labelled = True
    """Whether `choose` looks at the labelled samples."""

    needs_features = True
    """Whether `choose` looks at features; without, memory is O(N C), and of labelled samples it gets the targets."""

    def __init__(self, max_samples: int = 10, candidates: int | float | None = None, layer: str = "") -> None:
        self._set_max_samples(max_samples)
        count = isinstance(candidates, int)
        if candidates is not None and not (candidates >= 1 if count else 0 < candidates <= 1):
            raise UsageError(
                f"{type(self).__name__}: candidates is {candidates!r}; it must be a count of at least 1, or a fraction "
                "above 0 and up to 1."
            )
        self.candidates, self.layer = candidates, layer

    def choose(
        self, candidates: Embedded, labelled: Embedded, n: int
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return which samples to ask for, best first.

        Parameters
        ----------
        candidates
            N unlabelled samples, ascending by id.
        labelled
            The labelled samples in training order; empty where `needs_labelled` is False.
        n
            How many to choose: at least 1, at most N.

        Returns
        -------
        torch.Tensor or tuple
            Positions among the candidates: int64 (k,), k <= n, each once; or these and their scores (k,).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement choose(candidates, labelled, n) -> positions")

    def check(self) -> None:
        """Refuse a learner without the layer, before anything is trained."""
        self.driver.probe()
        if self.needs_features:
            check_layer(self.driver, self.layer)

    def gather(self, ids: torch.Tensor) -> Embedded:
        """Return what `choose` gets as candidates: these samples, ascending."""
        return embed(self.driver, ids, self.layer) if self.needs_features else embed_outputs(self.driver, ids)

    def _gather_labelled(self) -> Embedded:
        return embed_labelled(self.driver, self.layer) if self.needs_features else embed_targets(self.driver)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the samples that `choose` returns."""
        ids = scoring.subset(self.driver, self.candidates, self.generator("candidates"))
        n = min(self.wanted, len(ids))
        if not n:
            return
        candidates = self.gather(ids)
        none = candidates.take(slice(0))  # with as many features as the rest
        labelled = self._gather_labelled() if self.needs_labelled else none
        labelled = labelled if len(labelled.ids) else none
        refuse_non_finite(candidates)
        refuse_non_finite_features(labelled)
        chosen = self.choose(candidates, labelled, n)
        positions, scores = chosen if isinstance(chosen, tuple) else (chosen, None)
        query_queue.put_many(ids[positions].tolist(), None if scores is None else scores.tolist())
