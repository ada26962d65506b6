"""Messages of the command: which of several ranks speaks."""

from __future__ import annotations

import pytest

from alcore.commands.messages import say


@pytest.mark.parametrize(
    ("rank", "on_every_rank", "expected"),
    [(None, False, "alcore: a\n"), ("0", True, "alcore: a\n"), ("1", False, ""), ("1", True, "alcore, rank 1: a\n")],
)
def test_message_comes_from_rank_0_unless_it_concerns_every_rank(monkeypatch, capsys, rank, on_every_rank, expected):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    say("a", on_every_rank=on_every_rank)
    assert capsys.readouterr() == ("", expected)
