"""How a run is asked to end, and where it does."""

from __future__ import annotations

import builtins
import importlib
import threading
from pathlib import Path

import pytest

from alcore.distributed.ranks import Ranks
from alcore.driver.interruption import Interruption
from alcore.errors import Interrupted


class Several(Ranks):
    """The run of two ranks, as far as an interruption asks it."""

    size = 2

    def __init__(self, *, other: bool = False, ended: bool = False) -> None:
        self.other, self.ended = other, ended

    def any(self, flag: bool) -> bool:
        return flag or self.other

    def others_ended(self) -> bool:
        return self.ended


def test_nothing_happens_unless_the_run_was_asked_to_end() -> None:
    of = Interruption(Ranks())
    of.safe_point()
    of.agreed_safe_point()
    with of.immediate(lambda: False):
        of.safe_point()
    assert not of.agree()


def test_request_takes_effect_at_the_next_safe_point() -> None:
    of = Interruption(Ranks())
    of.request()
    assert of.requested
    for point in (of.safe_point, of.agreed_safe_point):
        with pytest.raises(Interrupted):
            point()


def test_request_ends_an_immediate_block_at_once() -> None:
    of = Interruption(Ranks())
    with of.immediate(lambda: False), pytest.raises(Interrupted):
        of.request()
    of.request()  # after the block it waits for a safe point again


def test_request_made_before_an_immediate_block_prevents_it() -> None:
    of = Interruption(Ranks())
    of.request()
    with pytest.raises(Interrupted), of.immediate(lambda: False):
        raise AssertionError("it was entered")


def test_request_waits_for_a_transaction_to_end() -> None:
    of = Interruption(Ranks())
    with of.immediate(lambda: True):
        of.request()
        with pytest.raises(Interrupted):
            of.safe_point()


def test_request_waits_for_an_import_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = Interruption(Ranks())
    (tmp_path / "module_that_is_interrupted.py").write_text("import builtins; builtins.ask(); whole = True")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "ask", of.request, raising=False)
    with of.immediate(lambda: False):
        module = importlib.import_module("module_that_is_interrupted")
        assert module.whole
        with pytest.raises(Interrupted):
            of.safe_point()


def test_request_ends_an_immediate_block_of_a_program_that_is_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        of = Interruption(Ranks())
        with of.immediate(lambda: False):
            of.request()

    (tmp_path / "program_that_is_an_import.py").write_text("import builtins; builtins.work()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "work", work, raising=False)
    with pytest.raises(Interrupted):
        importlib.import_module("program_that_is_an_import")


def test_request_of_another_thread_never_raises_there() -> None:
    of, raised = Interruption(Ranks()), []

    def ask() -> None:
        try:
            of.request()
        except Interrupted as error:
            raised.append(error)

    with of.immediate(lambda: False):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
        assert raised == []
        with pytest.raises(Interrupted):
            of.safe_point()


def test_several_ranks_end_only_where_they_agree() -> None:
    of = Interruption(Several())
    of.request()
    of.safe_point()
    with pytest.raises(Interrupted):
        of.agreed_safe_point()


def test_request_of_another_rank_ends_this_one_where_they_agree() -> None:
    of = Interruption(Several(other=True))
    of.safe_point()
    with pytest.raises(Interrupted):
        of.agreed_safe_point()
    assert of.requested


def test_rank_0_ends_while_it_labels_where_another_rank_has_ended() -> None:
    of = Interruption(Several(ended=True))
    of.safe_point()
    with pytest.raises(Interrupted), of.immediate(lambda: False):
        raise AssertionError("it was entered")


def test_request_made_while_the_ranks_agree_is_kept() -> None:
    class Late(Several):
        def any(self, flag: bool) -> bool:
            of.request()  # a signal that arrives after this rank has said that it was not asked
            return super().any(flag)

    of = Interruption(Late())
    assert not of.agree()
    assert of.requested
    with pytest.raises(Interrupted):
        of.agreed_safe_point()
