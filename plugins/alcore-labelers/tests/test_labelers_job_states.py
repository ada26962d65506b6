"""The states of jobs: the table of the code, and that of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from alcore_labelers.flight import Flight
from alcore_labelers.job_states import TRANSITIONS, UNSETTLED, JobChange, JobState
from alcore_labelers.schedulers import Job

from alcore.protocols import Request

PAGE = Path(__file__).parents[3] / "docs" / "jobs.md"


def flight_in(folder: Path, handle: str | None) -> Flight:
    return Flight(Request("0" * 32, 0, 0, 1), Job("n", folder, folder / "job.sh", None), handle)


def test_page_has_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| change | cause |") :].split("\n\n")[0].splitlines()
    states = [JobState[_name(cell)] for cell in _cells(table[0])[2:]]
    assert states == list(JobState)
    shown = {
        JobChange[_name(_cells(row)[0])]: {
            before: JobState[_name(after)] for before, after in zip(states, _cells(row)[2:], strict=True) if after
        }
        for row in table[2:]
    }
    assert shown == TRANSITIONS


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split("|")[1:-1]]


def _name(cell: str) -> str:
    return cell.upper().replace(" ", "_")


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.OVER])
def test_each_state_of_a_job_may_end(state: JobState) -> None:
    assert TRANSITIONS[JobChange.END][state] is JobState.OVER


@pytest.mark.parametrize("change", list(JobChange))
def test_job_that_is_over_never_changes(change: JobChange) -> None:
    assert JobState.OVER not in TRANSITIONS[change]


@pytest.mark.parametrize("state", [JobState.SUBMITTED, JobState.BEGUN])
def test_job_that_was_submitted_is_never_submitted_again(state: JobState) -> None:
    assert state not in TRANSITIONS[JobChange.SUBMIT]
    assert not {changes.get(state) for changes in TRANSITIONS.values()} & UNSETTLED


@pytest.mark.parametrize("state", list(JobState))
def test_job_has_a_handle_from_the_time_when_it_is_submitted(tmp_path: Path, state: JobState) -> None:
    flight = flight_in(tmp_path, None)
    flight.state = state
    if state is JobState.OVER:
        with pytest.raises(KeyError):
            flight.identify("7")
        assert flight.handle is None
    else:
        flight.identify("7")
        assert (flight.state, flight.handle) == (JobState.SUBMITTED, "7")


@pytest.mark.parametrize(("handle", "state"), [(None, JobState.PREPARED), ("7", JobState.SUBMITTED)])
def test_job_of_an_earlier_driver_begins_as_what_was_committed_of_it(tmp_path, handle, state):
    assert flight_in(tmp_path, handle).state is state
