"""Runs in MLflow."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alcore import BaseTracker
from alcore.protocols import EndReason
from alcore.store import parse_toml
from alcore.strategies import Tracked

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_ID, _FOLDER = "alcore_run_id", "alcore_run_directory"
_LONGEST, _MOST = 6000, 100  # characters of a parameter's value, and parameters of a call
_MOST_METRICS = 1000  # of a call


class MLflowTracker(BaseTracker):
    """Log each step to MLflow: what was measured, labels, cost and times, with the experiment and its records.

    Parameters
    ----------
    uri
        Of the tracking server, or ``sqlite:///FILE``. If it is not given, what ``MLFLOW_TRACKING_URI`` says, else the
        file ``mlflow.db`` beside the run directories.
    experiment
        Name of MLflow's experiment; it is made if there is none.
    weights
        Whether to upload the last checkpoint when the run ends.

    Notes
    -----
    A run of alcore is a run of MLflow, also when it is interrupted and resumed: no point is logged twice. Each curve is
    there twice, over steps and, with ``/labels`` after its name, over labels. Unless the environment says otherwise,
    MLflow tries a server that does not answer once more, for 10 s, and its usage statistics are off.
    """

    def __init__(self, uri: str | None = None, experiment: str = "alcore", weights: bool = True) -> None:
        self._uri, self._experiment, self._weights = uri, experiment, weights
        self._client: MlflowClient | None = None
        self._run = ""
        self._known: dict[str, set[int]] = {}

    def state_dict(self) -> Mapping[str, Any]:
        """Return the id of MLflow's run, too."""
        return {**super().state_dict(), "run": self._run}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self._run = state["run"]

    def begin(self, step: int, labels: int, cost: float) -> None:
        """Begin MLflow's run, or go on with it."""
        del step, labels, cost  # what is logged already is looked up
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of each table that it makes
        root = self.driver.log_dir.parent.absolute()
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
        with _alone(uri):
            self._client = client = MlflowClient(tracking_uri=uri)
            earlier = client.get_experiment_by_name(self._experiment)
            if earlier is None:
                place = (root / "mlflow-artifacts").as_uri() if uri.startswith("sqlite:") else None
                experiment = client.create_experiment(self._experiment, artifact_location=place)
            else:
                experiment = earlier.experiment_id
        run = self._mine(client) or self._find(client, experiment)
        if run:
            client.update_run(run, status="RUNNING")
        else:
            tags = {_ID: self.driver.run_id, _FOLDER: str(self.driver.log_dir.absolute())}
            run = client.create_run(experiment, run_name=self.driver.run_id, tags=tags).info.run_id
        self._run = run
        logged = client.get_run(run).data
        self._known = {name: {point.step for point in client.get_metric_history(run, name)} for name in logged.metrics}
        if not logged.params:
            parameters = [Param(name, value) for name, value in self._parameters()]
            for start in range(0, len(parameters), _MOST):
                client.log_batch(run, params=parameters[start : start + _MOST])

    def write(self, tracked: Tracked) -> None:
        """Log the figures of a step that are not there yet, in one call."""
        from mlflow.entities import Metric

        assert self._client is not None  # begin() came before
        figures = {**tracked.values, **{f"seconds.{name}": seconds for name, seconds in tracked.seconds.items()}}
        by_step = {**figures, "labels": tracked.labels, "cost": tracked.cost}
        places = [(name, float(value), tracked.step) for name, value in by_step.items()]
        places += [(f"{name}/labels", float(value), tracked.labels) for name, value in tracked.values.items()]
        now = int(time.time() * 1000)
        new = [place for place in places if place[2] not in self._known.get(place[0], ())]
        for start in range(0, len(new), _MOST_METRICS):
            metrics = [
                Metric(name, float(value), now, step) for name, value, step in new[start : start + _MOST_METRICS]
            ]
            self._client.log_batch(self._run, metrics=metrics)
        for name, _, step in new:
            self._known.setdefault(name, set()).add(step)

    def finish(self, reason: EndReason | None, error: BaseException | None) -> None:
        """Upload the experiment, the records and the last checkpoint, and end MLflow's run."""
        if self._client is None or not self._run:
            return
        from mlflow.entities import RunTag

        client, folder = self._client, self.driver.log_dir
        ending = reason if error is None else f"{type(error).__name__}: {error}"
        client.log_batch(self._run, tags=[RunTag("alcore_ended", str(ending)[:5000])])
        if (folder / "experiment.toml").is_file():
            client.log_artifact(self._run, str(folder / "experiment.toml"))
        for strategy in self.driver.metrology_strategies:
            text = json.dumps(strategy.records, indent=1, default=_plain)
            client.log_text(self._run, text, f"{self.driver.strategy_name(strategy)}.json")
        points = sorted((folder / "ckpt").glob("[0-9]*.safetensors")) if self._weights else []
        if points:
            client.log_artifact(self._run, str(points[-1]), "ckpt")
        if error is not None:
            client.set_terminated(self._run, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        elif reason is not None and reason.kind.status == "waiting":
            client.update_run(self._run, status="SCHEDULED")
        else:
            failed = reason is not None and reason.kind.status == "failed"
            client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
        self._client = None

    def _mine(self, client: MlflowClient) -> str:
        """Return the run of MLflow that the state names; "" if it is gone, or that of the run that this one forks."""
        from mlflow.exceptions import MlflowException

        if not self._run:
            return ""
        try:
            run = client.get_run(self._run)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        return self._run if run.data.tags.get(_ID) == self.driver.run_id else ""

    def _find(self, client: MlflowClient, experiment: str) -> str:
        """Return the run of MLflow that logs this run, or "" if there is none."""
        mine = f"tags.`{_ID}` = '{self.driver.run_id}'"
        for run in client.search_runs([experiment], mine):
            if run.data.tags.get(_FOLDER) == str(self.driver.log_dir.absolute()):
                return str(run.info.run_id)
        return ""

    def _parameters(self) -> Iterator[tuple[str, str]]:
        """Yield the names and values of everything that the experiment sets."""
        try:
            experiment = parse_toml((self.driver.log_dir / "experiment.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # of a run that was built in Python there is no complete one
            return
        yield from _flat(experiment)


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Let one process at a time make a database's tables: MLflow does not, and leaves it broken, as in a benchmark."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if path == uri or path in ("", ":memory:"):
        yield
        return
    lock = Path(f"{path}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _plain(value: Any) -> Any:
    """Return an array or tensor as lists, for JSON, and anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if prefix == "" and name == "digests":  # their names are paths
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)[:_LONGEST]
