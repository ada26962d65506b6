"""A run is one run of MLflow, with each step once, and a server that fails doesn't end it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alcore_mlflow import MLflowTracker
from alcore_testing import ObserverContract, run_command
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from alcore.protocols import EndKind, EndReason
from alcore.store import find_run

WORDS = ("run", "--observe", "mlflow", "--quiet", "--run-id", "mine")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(empty: Path, tmp_path: Path) -> Path:
    """Return a folder for runs with such a database."""
    folder = tmp_path / "active_learning_logs"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty.read_bytes())
    return folder


class TestMLflowTracker(ObserverContract):
    name = "mlflow"
    state_is_of_the_run = False  # it has the id of MLflow's run

    @pytest.fixture(autouse=True)
    def database(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")

    def make(self, **parameters: Any) -> MLflowTracker:
        return MLflowTracker(**parameters)

    def posted(self, driver: Any) -> Any:
        client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        experiment = client.get_experiment_by_name("alcore")
        runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
        posts = []
        for run in runs:
            if run.data.tags["alcore_run_id"] == driver.run_id:
                names = [name for name in run.data.metrics if not name.startswith("seconds.")]
                posts += [(name, *point) for name in sorted(names) for point in points(client, run, name)]
        return posts


def logged(root: Path) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("alcore")
    return client, list(client.search_runs([experiment.experiment_id]))


def points(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def test_metrics_parameters_and_artifacts_are_the_runs(root: Path) -> None:
    assert run_command(root.parent, *WORDS, "--steps", "3").code == 0
    client, (run,) = logged(root)
    records = find_run(root, "mine").records()["f1_metrology"]
    values = [record["f1"] for record in records]
    assert points(client, run, "f1_metrology.f1") == list(zip(range(4), values, strict=True))
    assert points(client, run, "f1_metrology.f1/labels") == list(zip([50, 60, 70, 80], values, strict=True))
    assert points(client, run, "cost") == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert run.info.run_name == "mine"
    assert run.info.status == "FINISHED"
    assert run.data.params["query.uq.max_samples"] == "10"
    folder = Path(client.download_artifacts(run.info.run_id, ""))
    assert json.loads((folder / "f1_metrology.json").read_text(encoding="utf-8")) == records
    (weights,) = (folder / "ckpt").iterdir()
    assert weights.read_bytes() == (root / "mine" / "ckpt" / weights.name).read_bytes()


@pytest.mark.parametrize(
    ("reason", "error", "status"),
    [
        (EndReason(EndKind.STEPS, "all 3 steps are done"), None, "FINISHED"),
        (EndReason(EndKind.WAITING, "3 requests are open"), None, "SCHEDULED"),
        (EndReason(EndKind.LABELS_FAIL, "5 of the last 5 answers were failures"), None, "FAILED"),
        (None, KeyboardInterrupt(), "KILLED"),
        (None, ValueError("no"), "FAILED"),
    ],
)
def test_status_is_what_the_run_has_come_to(root: Path, reason: Any, error: Any, status: str) -> None:
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    made = client.create_run(client.create_experiment("alcore"))
    tracker = MLflowTracker()
    tracker.alcore_run_start(SimpleNamespace(log_dir=root / "mine", metrology_strategies=[]))  # type: ignore[arg-type]
    tracker._client, tracker._run = client, made.info.run_id
    tracker.finish(reason, error)
    assert client.get_run(made.info.run_id).info.status == status


def test_extended_run_goes_on_with_its_run_and_logs_no_point_twice(root: Path) -> None:
    assert run_command(root.parent, *WORDS, "--steps", "2").code == 0
    assert run_command(root.parent, "resume", "mine", "--steps", "4", "--quiet").code == 0
    client, (run,) = logged(root)
    for name in ("f1_metrology.f1", "labels"):
        assert [step for step, _ in points(client, run, name)] == [0, 1, 2, 3, 4]
    assert [step for step, _ in points(client, run, "requested")] == [0, 1, 2, 3]


def test_server_that_fails_is_warned_of_once_and_gets_everything_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, log = [], MlflowClient.log_batch

    def failing(self: MlflowClient, run: str, **what: Any) -> None:
        if "metrics" in what:
            calls.append(run)
            if len(calls) < 4:
                raise ConnectionError("no answer")
        log(self, run, **what)

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    assert run_command(root.parent, *WORDS, "--steps", "5").code == 0
    client, (run,) = logged(root)
    assert [step for step, _ in points(client, run, "f1_metrology.f1")] == [0, 1, 2, 3, 4, 5]
    assert (root / "mine" / "console.log").read_text(encoding="utf-8").count("no answer") == 1


def test_fork_is_a_run_of_its_own(root: Path) -> None:
    assert run_command(root.parent, *WORDS, "--steps", "3").code == 0
    assert run_command(root.parent, "fork", "mine", "--step", "1", "--run-id", "other").code == 0
    assert run_command(root.parent, "resume", "other", "--steps", "4", "--quiet").code == 0
    client, runs = logged(root)
    steps = {run.info.run_name: [step for step, _ in points(client, run, "f1_metrology.f1")] for run in runs}
    assert steps["mine"] == [0, 1, 2, 3]
    assert steps["other"][-1] == 4


def test_run_goes_on_in_another_database_as_a_new_run(root: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command(root.parent, *WORDS, "--steps", "2").code == 0
    other = root / "other" / "mlflow.db"
    other.parent.mkdir()
    other.write_bytes(empty.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    assert run_command(root.parent, "resume", "mine", "--steps", "3", "--quiet").code == 0
    client, (run,) = logged(other.parent)
    assert points(client, run, "f1_metrology.f1")[-1][0] == 3


def test_one_process_at_a_time_makes_the_tables(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, begin = [], MlflowClient.__init__

    def beginning(self: MlflowClient, tracking_uri: str) -> None:
        with (root / "mlflow.db.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(tracking_uri)
        begin(self, tracking_uri)

    monkeypatch.setattr(MlflowClient, "__init__", beginning)
    assert run_command(root.parent, *WORDS, "--steps", "1").code == 0
    assert held == [f"sqlite:///{root / 'mlflow.db'}"]
