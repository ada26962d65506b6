"""The state of a label strategy: what it drew last is kept until the phase that it belongs to is taken up."""

from __future__ import annotations

import random
from typing import Any

from alcore.codec import dumps, loads
from alcore.driver.labeling import LabelerState


class Drawing:
    def __init__(self) -> None:
        self.n = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


def saved_in_step_2() -> str:
    state = LabelerState(Drawing())
    with state.phase(2):
        random.random()
        saved = state.commit()
    assert saved is not None
    return saved


def test_phases_on_record_leave_it_for_the_phase_that_was_cut_off() -> None:
    saved = saved_in_step_2()
    for _ in range(2):
        random.random()
    state = LabelerState(Drawing(), saved)
    with state.phase(0):
        pass
    with state.phase(2):
        again = state.commit()
    assert again == saved


def test_an_answer_outside_a_phase_keeps_what_was_drawn_in_the_last_one() -> None:
    saved = saved_in_step_2()
    strategy = Drawing()
    state = LabelerState(strategy, saved)
    strategy.n = 7
    random.random()
    late = state.commit()
    assert late is not None
    assert late == dumps({**loads(saved), "strategy": {"n": 7}})
