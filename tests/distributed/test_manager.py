"""How processes find each other, and what they tell torchrun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alcore.distributed import DistributedManager, average
from alcore.distributed.manager import manager_for, report_failure
from alcore.distributed.ranks import Ranks
from alcore.errors import UsageError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_ERROR_FILE")


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_manager_of_a_single_process_joins_nobody() -> None:
    manager = DistributedManager("cpu")
    assert (manager.rank, manager.local_rank, manager.world_size) == (0, 0, 1)
    assert not manager.distributed
    assert manager.training_group is None
    assert type(manager.join()) is Ranks
    assert average(2.5) == 2.5


def test_timeout_is_half_an_hour_by_default() -> None:
    assert DistributedManager("cpu").timeout == 1800.0


def test_manager_for_is_none_for_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manager_for("cpu") is None
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    manager = manager_for("cuda")
    assert manager is not None
    assert (str(manager.device), manager.rank) == ("cuda:1", 1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2; ranks are counted from 0"),
        ({"RANK": "one"}, "the environment variable RANK is 'one'; it must be a whole number"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT not set: processes can't find each other"),
    ],
)
def test_environment_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        DistributedManager("cpu").join()


def test_join_gives_up_when_a_rank_never_starts(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "join.py"
    script.write_text("from alcore import DistributedManager\nDistributedManager(join_timeout=2.0).join()\n")
    lonely = start(1, script, WORLD_SIZE="2").wait()
    assert lonely.codes == [1]
    assert "UsageError: rank 0 of 2 can't join the others at 127.0.0.1:" in lonely.texts[0]


def test_failure_is_written_to_torchruns_error_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    report_failure(KeyboardInterrupt())
    assert not (tmp_path / "error.json").exists()
    with pytest.raises(ValueError, match="trouble") as caught:
        raise ValueError("trouble")
    trace = caught.value.__traceback__
    report_failure(caught.value)
    assert caught.value.__traceback__ is trace
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert message["message"] == "ValueError: trouble"
    assert "test_failure_is_written_to_torchruns_error_file" in message["extraInfo"]["py_callstack"]


def test_failure_is_published_nowhere_without_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report_failure(ValueError("trouble"))
    assert list(tmp_path.iterdir()) == []
