"""The names and commands that plugins of this repository offer, to say where one that is missing comes from."""

from __future__ import annotations

_NAMES: dict[str, dict[str, str]] = {
    "alcore-bayes": {
        "query": "bald batchbald mean-std powerbald qbc variation-ratio",
        "learner": "deep-ensemble ensemble",
    },
    "alcore-check": {"command": "check"},
    "alcore-csvlog": {"observe": "csv"},
    "alcore-diversity": {
        "query": "badge class-balanced cluster-margin density kcenter probcover stratified stratified-start typiclust"
    },
    "alcore-dummy": {"label": "dummy"},
    "alcore-f1": {"metrology": "f1"},
    "alcore-gp": {"learner": "gp", "loop": "gp"},
    "alcore-labelers": {"label": "ask command function jobs", "command": "ask labels tell"},
    "alcore-metrics": {"metrology": "classification fields regression rmse uncertainty"},
    "alcore-mlflow": {"observe": "mlflow"},
    "alcore-moons": {"data": "moons", "learner": "mlp"},
    "alcore-predict": {"command": "export predict"},
    "alcore-random": {"query": "random"},
    "alcore-regression": {"query": "alc emcm gsx gsy igs max-variance variance"},
    "alcore-report": {"query": "everything", "command": "benchmark compare forecast report"},
    "alcore-sklearn": {"loop": "sklearn", "query": "sklearn-uq", "learner": "sklearn"},
    "alcore-space": {"data": "space", "query": "design refined"},
    "alcore-stopping": {"stop": "budget confident metric plateau stabilizing-predictions"},
    "alcore-tabular": {"data": "csv"},
    "alcore-tensorboard": {"observe": "tensorboard"},
    "alcore-torchloop": {"loop": "default"},
    "alcore-uq": {"query": "uq"},
    "alcore-web": {"command": "dash watch"},
    "alcore-worker": {"label": "worker", "queue": "redis", "command": "worker"},
}

_STANDARD = frozenset({"alcore-check", "alcore-labelers", "alcore-predict", "alcore-report"})
"""The distributions with commands among those of the extra ``standard``, which every installation is to have."""


def has_standard_commands(package: str) -> bool:
    """Return whether a distribution has commands that are offered whatever ``--only`` says."""
    return package in _STANDARD


def package_of(kind: str, name: str) -> str | None:
    """Return the distribution that offers a name of this kind, or the command of this name; None for another name."""
    for package, kinds in _NAMES.items():
        if name in kinds.get(kind, "").split():
            return package
    return None
