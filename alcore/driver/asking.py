"""What a run asks for: its open requests, with what a person needs to answer them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alcore.pools.provenance import inputs_by_sample, named_values, sources_of, units_of
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import Failed, Label, Request
from alcore.store.reading import Run
from alcore.store.rows import RequestOutcome
from alcore.store.run import RunStore


@dataclasses.dataclass(frozen=True, eq=False)
class OpenRequest:
    """A request that has no answer.

    Parameters
    ----------
    request
        What is asked for; a `alcore.Label` or `alcore.Failed` may name it.
    sample
        Its sample id; None for a generated input.
    strategy
        Name of the query strategy that asked.
    score
        What the strategy gave the item, if it gives scores.
    rank
        Its place among what the strategy asked for in its step, from 0.
    cost
        What the label is expected to cost.
    input
        The learner's input, or the generated one; None where the pool is not known.
    shown
        What the pool shows of the sample, by column (`alcore.protocols.PoolProvenance.shown`); empty where it doesn't.
    units
        The units of what is shown, by column, where the pool knows them.
    row, line
        Where the sample is in the file that it comes from, where the pool knows it: the row from 0, the line from 1.
    """

    request: Request
    sample: int | None
    strategy: str
    score: float | None
    rank: int
    cost: float
    input: Any = None
    shown: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    row: int | None = None
    line: int | None = None


def open_requests(run: Run, pool: Any) -> list[OpenRequest]:
    """Return the requests of a run that have no answer, nor one in its inbox, in the order in which they were made.

    Parameters
    ----------
    run
        The run, which may be under way.
    pool
        The pool to choose from; None where it is not known.
    """
    told = answers_in_inbox(run)  # before the database, so that an answer on its way is seen in one of the two
    asked = [state.asked for state in run.states() if state.state == "open" and state.asked.request.id not in told]
    samples = [asked_request.sample for asked_request in asked if asked_request.sample is not None]
    shown, inputs = named_values(pool, samples), inputs_by_sample(pool, samples)
    units = units_of(pool)
    rows, lines = (_places_of(samples, places) for places in sources_of(pool))
    return [
        OpenRequest(
            asked_request.request,
            asked_request.sample,
            asked_request.strategy,
            asked_request.score,
            asked_request.rank,
            asked_request.cost,
            input=asked_request.request.item if asked_request.sample is None else inputs.get(asked_request.sample),
            shown={} if asked_request.sample is None else shown.get(asked_request.sample, {}),
            units=units,
            row=None if asked_request.sample is None else rows.get(asked_request.sample),
            line=None if asked_request.sample is None else lines.get(asked_request.sample),
        )
        for asked_request in asked
    ]


def reopen_requests(run: Run, requests: Sequence[str]) -> None:
    """Let a run that is not under way ask again for labels that were given up, or that the training pool refused.

    Parameters
    ----------
    run
        The run.
    requests
        Their ids: those of `Run.unlabeled_requests` whose state is not ``"open"``.
    """
    store = RunStore.open(run.folder.parent, run.folder.name)
    try:
        store.reopen_requests(requests)
    finally:
        store.close()


def answers_in_inbox(run: Run) -> dict[str, list[Label | Failed]]:
    """Return the answers that name a request, and that a run has not taken in yet, by the id of the request."""
    answers_of: dict[str, list[Label | Failed]] = {}
    samples: dict[int, str] | None = None
    for _, answers, _ in run.inbox.read():
        for answer in answers or ():
            named = answer.item if isinstance(answer, Label | Failed) else answer
            if isinstance(named, Request):
                key = named.id
            else:
                if samples is None:
                    samples = ids_of_samples(run.states())
                sample = as_sample_id(named)
                key = samples.get(-1 if sample is None else sample, "")
            kept = answer if isinstance(answer, Label | Failed) else Label(named, None)
            answers_of.setdefault(key, []).append(kept)
    answers_of.pop("", None)
    return answers_of


def ids_of_samples(states: Sequence[RequestOutcome]) -> dict[int, str]:
    """Return the ids of requests by their samples; of several requests for one sample, an open one or else the last."""
    ranked = sorted(states, key=lambda state: state.state == "open")
    return {state.asked.sample: state.asked.request.id for state in ranked if state.asked.sample is not None}


def _places_of(samples: Sequence[int], places: torch.Tensor | None) -> dict[int, int]:
    """Return where samples are in the file that they come from, of the places of all samples."""
    return {} if places is None else {sample: int(places[sample]) for sample in samples if sample < len(places)}
