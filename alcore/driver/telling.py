"""Answers that are told to a run from outside: each is checked, and goes to the inbox of the run."""

from __future__ import annotations

import bisect
import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from alcore.codec import dumps
from alcore.driver.answers import AnswerCheck, BadAnswerError, accepted_label, paid_for, withdrawal
from alcore.driver.asking import OpenRequest, answers_in_inbox, ids_of_samples
from alcore.errors import EncodingError, UsageError
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import FAILURE_KINDS, Failed, Label, Request
from alcore.store.reading import Run
from alcore.store.rows import RequestOutcome

Verdict = Literal["accepted", "corrected", "repeated", "refused"]
"""What becomes of an answer that is told."""
_SHOWN = 3  # places in one message
_DIGITS = re.compile(r"[0-9a-f]{4,32}")


@dataclasses.dataclass(frozen=True)
class ToldAnswer:
    """What became of one answer.

    Parameters
    ----------
    place
        Where it was: ``"line 3"`` of a file, or ``"answer 3"``, counted from 1.
    verdict
        ``"accepted"``; ``"corrected"`` where it takes the place of an earlier answer of the same source;
        ``"repeated"`` where it changes nothing, since the run has it; or ``"refused"``.
    request
        The id of its request, where that is known.
    reason
        Why it was refused, or what it repeats; empty otherwise.
    kind
        ``"label"``, or the kind of a `alcore.Failed`; empty where it is not known.
    """

    place: str
    verdict: Verdict
    request: str | None = None
    reason: str = ""
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Told:
    """What became of answers.

    Parameters
    ----------
    answers
        In the order in which they were given.
    unanswered
        How many rows of a file had no answer.
    """

    answers: list[ToldAnswer]
    unanswered: int = 0

    def of(self, *verdicts: Verdict) -> list[ToldAnswer]:
        """Return the answers with one of these verdicts."""
        return [answer for answer in self.answers if answer.verdict in verdicts]


@dataclasses.dataclass(frozen=True, eq=False)
class GivenAnswer:
    """An answer with the place that it was read from, such as a row of a file.

    Parameters
    ----------
    place
        As in `ToldAnswer`.
    answer
        The answer; None where it can't be understood, or there is none. A cost of None is the expected one.
    fault
        Why it can't be understood; empty otherwise.
    sample
        The sample that it says it is for, beside the request.
    """

    place: str
    answer: Label | Failed | None = None
    fault: str = ""
    sample: int | None = None


def tell(run: Run, answers: Iterable[Any], check: AnswerCheck) -> Told:
    """Check answers, and put those that are right into the inbox of a run, where they are on the disk then.

    The run takes them in at its next labeling phase, at the end of a step without one, or in the midst of a phase where
    its label strategy asks for them (`LabelingContext.take_told`).

    Parameters
    ----------
    run
        The run, which may be under way.
    answers
        `alcore.Label`, `alcore.Failed`, or either as a `GivenAnswer`. Each names its request: as a `alcore.Request`, an
        `OpenRequest`, a request id or the first digits of one, or a sample id.
    check
        Checks what can be a label of the data.

    Raises
    ------
    UsageError
        When `answers` is the path of a file.
    """
    given = _given(answers)
    answered = [answer for answer in given if answer.answer is not None or answer.fault]
    with run.inbox.alone():  # two that tell one file at a time would both find it new
        told = answers_in_inbox(run)  # before the database, so that an answer on its way is seen in one of the two
        judge = _Judge(run, told, check)
        judged = judge.all(answered)
        if accepted := [label for _, label in judged if label is not None]:
            run.inbox.publish(accepted, told=True)
    return Told([verdict for verdict, _ in judged], len(given) - len(answered))


def _given(answers: Iterable[Any]) -> list[GivenAnswer]:
    """Return answers with their places."""
    if isinstance(answers, str | os.PathLike):
        raise UsageError(
            f"answers are alcore.Label and alcore.Failed, not the file {os.fspath(answers)!r}; "
            "alcore_labelers.read_answers reads it."
        )
    return [
        answer if isinstance(answer, GivenAnswer) else _of_program(f"answer {place}", answer)
        for place, answer in enumerate(answers, start=1)
    ]


def _of_program(place: str, answer: Any) -> GivenAnswer:
    if isinstance(answer, Label | Failed):
        return GivenAnswer(place, answer)
    return GivenAnswer(place, None, f"it is a {type(answer).__name__}; give alcore.Label or alcore.Failed")


class _RefusedError(Exception):
    """Why an answer is refused."""


class _Judge:
    """Finds out what becomes of answers.

    Parameters
    ----------
    run
        The run that they are for.
    told
        Answers that the run has not taken in yet, by request.
    check
        Checks what can be a label of the data.
    """

    def __init__(self, run: Run, told: dict[str, list[Label | Failed]], check: AnswerCheck) -> None:
        self._run, self._told, self._check = run, told, check
        states = run.states()
        self._states = {state.asked.request.id: state for state in states}
        self._keys = sorted(self._states)
        self._samples = ids_of_samples(states)

    def all(self, given: Sequence[GivenAnswer]) -> list[tuple[ToldAnswer, Label | Failed | None]]:
        """Return the verdict of each answer, and what is to be published of it."""
        checked = [self._checked(answer) for answer in given]
        texts: dict[str, set[str]] = defaultdict(set)
        places: dict[str, list[str]] = defaultdict(list)
        for given_answer, (_, key, answer) in zip(given, checked, strict=True):
            if answer is not None:
                texts[key].add(_text(answer))
                places[key].append(given_answer.place)
        contradictions = {
            key: f"{_listed(places[key])} answer one request differently" for key in texts if len(texts[key]) > 1
        }
        verdicts: list[tuple[ToldAnswer, Label | Failed | None]] = []
        seen: set[str] = set()
        for given_answer, (fault, key, answer) in zip(given, checked, strict=True):
            kind = (
                ""
                if given_answer.answer is None
                else "label"
                if isinstance(given_answer.answer, Label)
                else given_answer.answer.kind
            )
            if answer is None:
                verdicts.append((ToldAnswer(given_answer.place, "refused", key or None, fault, kind), None))
            elif key in contradictions:
                verdicts.append((ToldAnswer(given_answer.place, "refused", key, contradictions[key], kind), None))
            elif key in seen:
                verdicts.append(
                    (ToldAnswer(given_answer.place, "repeated", key, f"{places[key][0]} says the same", kind), None)
                )
            else:
                seen.add(key)
                verdict, reason = self._verdict(self._states[key], answer, given_answer.answer)
                taken = answer if verdict in ("accepted", "corrected") else None
                verdicts.append((ToldAnswer(given_answer.place, verdict, key, reason, kind), taken))
        return verdicts

    def _checked(self, given: GivenAnswer) -> tuple[str, str, Label | Failed | None]:
        """Return what is wrong with an answer, the id of its request, and the answer as it is published."""
        key = ""
        try:
            if given.answer is None:
                raise _RefusedError(given.fault)
            key = self._key(given.answer.item)
            state = self._states[key]
            if given.sample is not None and given.sample != state.asked.sample:
                raise _RefusedError(
                    f"request {key[:12]} is for sample {state.asked.sample}, and this says sample {given.sample}; were "
                    "the columns sorted apart?"
                )
            return "", key, self._as_published(state, given.answer)
        except (_RefusedError, BadAnswerError, EncodingError) as error:
            return str(error), key, None

    def _key(self, item: Any) -> str:
        """Return the id of the request that an answer names."""
        if isinstance(item, OpenRequest):
            item = item.request
        if isinstance(item, Request):
            item = item.id
        sample = as_sample_id(item)
        if sample is not None:
            if sample not in self._samples:
                raise _RefusedError(f"nobody asked for sample {sample}")
            return self._samples[sample]
        if not isinstance(item, str):
            raise _RefusedError(f"it names its request by a {type(item).__name__}; name the id, or the Request itself")
        digits = item.strip().lower()
        if digits in self._states:
            return digits
        first = last = 0
        if _DIGITS.fullmatch(digits):
            first, last = bisect.bisect_left(self._keys, digits), bisect.bisect_left(self._keys, f"{digits}g")
        if last - first != 1:
            several = f"{last - first} requests begin with" if last > first else "there is no request"
            raise _RefusedError(f"{several} {item[:40]!r}; alcore ask lists the open ones")
        return self._keys[first]

    def _as_published(self, state: RequestOutcome, answer: Label | Failed) -> Label | Failed:
        """Return an answer with its value as it is stored, for the request alone."""
        asked = state.asked
        named = Request(asked.request.id, 0, 0, None)
        if isinstance(answer, Failed):
            if answer.kind not in FAILURE_KINDS:
                raise _RefusedError(f"its kind is {answer.kind!r}, which is none of {', '.join(FAILURE_KINDS)}")
            paid_for(answer, asked.cost)
            return dataclasses.replace(answer, item=named, reason=str(answer.reason))
        answer = dataclasses.replace(answer, item=named)
        accepted = accepted_label(asked.request, answer, self._check, asked.cost)
        return dataclasses.replace(answer, value=accepted.item.value, cost=accepted.cost)

    def _verdict(self, state: RequestOutcome, answer: Label | Failed, given: Any) -> tuple[Verdict, str]:
        if state.state != "labeled" and (before := self._told.get(state.asked.request.id)):
            return _against_inbox(before[-1], answer)
        if state.state == "failed":
            return self._against_given_up(state, answer)
        if isinstance(answer, Label):
            return ("accepted", "") if state.state == "open" else self._against_label(state, answer)
        if state.state == "labeled":
            return "refused", "it has its label"
        attempt = given.item.request.attempt if isinstance(given.item, OpenRequest) else None
        attempt = given.item.attempt if isinstance(given.item, Request) else attempt
        is_repeated = _is_same_failure(state, answer) if attempt is None else attempt < state.asked.request.attempt
        return ("repeated", "the run knows of this failure") if is_repeated else ("accepted", "")

    def _against_given_up(self, state: RequestOutcome, answer: Label | Failed) -> tuple[Verdict, str]:
        if isinstance(answer, Failed) and _is_same_failure(state, answer):
            return "repeated", "it was given up for this reason"
        name, key = self._run.folder.name, state.asked.request.id[:12]
        return "refused", f"it was given up ({state.reason}); alcore labels {name} --reopen {key} asks for it again"

    def _against_label(self, state: RequestOutcome, answer: Label) -> tuple[Verdict, str]:
        """Compare a label with the one that the run has."""
        before = self._told.get(state.asked.request.id)
        told = next((answer for answer in reversed(before or ()) if isinstance(answer, Label)), None)
        text = self._run.label_text({"value": state.value, "file": state.file})
        source = state.source
        if told is not None:  # a correction that the run has not taken in yet
            text, source = dumps(told.value), told.source
        if text == dumps(answer.value):
            return "repeated", "the run has this label"
        if state.kind != "label":
            return "refused", "it has its label"
        if source != answer.source:
            return "refused", f"it has another label, and {source!r} gave it"
        if state.passed:
            return "refused", "it has another label, and the training pool has taken it"
        return "corrected", ""


def _listed(places: Sequence[str]) -> str:
    """Return where answers are: the first ones, and how many others there are."""
    others = len(places) - _SHOWN
    return " and ".join([*places[:_SHOWN], *([f"{others} others"] if others > 0 else [])])


def _against_inbox(before: Label | Failed, answer: Label | Failed) -> tuple[Verdict, str]:
    """Compare an answer with one that the run has not taken in yet."""
    if _text(before) == _text(answer):
        return "repeated", "it was told before"
    if isinstance(before, Failed) or isinstance(answer, Failed):
        what = f"failure ({before.kind})" if isinstance(before, Failed) else "label"
        return "refused", f"a {what} was told before, which the run has not taken in yet"
    if before.source != answer.source:
        if dumps(before.value) == dumps(answer.value):
            return "repeated", "it was told before"
        return "refused", f"another label was told before, by {before.source!r}"
    return "corrected", ""


def _is_same_failure(state: RequestOutcome, answer: Failed) -> bool:
    withdrawn = answer.kind == "withdrawn"
    kind, reason = ("dropped", withdrawal(answer.reason)) if withdrawn else (answer.kind, answer.reason)
    return (state.failure, state.reason) == (kind, reason)


def _text(answer: Label | Failed) -> str:
    """Return what an answer says, but for its cost."""
    if isinstance(answer, Label):
        return dumps(["label", answer.value, answer.source])
    return dumps([answer.kind, answer.reason])
