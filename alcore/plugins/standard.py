"""The names that the plugins of this repository offer, to say where a name that is not installed comes from."""

from __future__ import annotations

_NAMES: dict[str, dict[str, str]] = {
    "alcore-bayes": {"query": "bald batchbald mean-std powerbald qbc variation-ratio", "learner": "ensemble"},
    "alcore-csvlog": {"observe": "csv"},
    "alcore-diversity": {
        "query": "badge class-balanced cluster-margin density kcenter probcover stratified stratified-start typiclust"
    },
    "alcore-dummy": {"label": "dummy"},
    "alcore-f1": {"metrology": "f1"},
    "alcore-gp": {"learner": "gp", "loop": "gp"},
    "alcore-labelers": {"label": "ask command function jobs"},
    "alcore-metrics": {"metrology": "classification fields regression rmse uncertainty"},
    "alcore-mlflow": {"observe": "mlflow"},
    "alcore-moons": {"data": "moons", "learner": "mlp"},
    "alcore-random": {"query": "random"},
    "alcore-regression": {"query": "alc emcm gsx gsy igs max-variance variance"},
    "alcore-report": {"query": "everything"},
    "alcore-sklearn": {"loop": "sklearn", "query": "sklearn-uq", "learner": "sklearn"},
    "alcore-space": {"data": "space", "query": "design refined"},
    "alcore-stopping": {"stop": "budget confident metric plateau stabilizing-predictions"},
    "alcore-tabular": {"data": "csv"},
    "alcore-tensorboard": {"observe": "tensorboard"},
    "alcore-torchloop": {"loop": "default"},
    "alcore-uq": {"query": "uq"},
    "alcore-worker": {"label": "worker", "queue": "redis"},
}


def package_of(kind: str, name: str) -> str | None:
    """Return the distribution that offers a name of this kind, or None."""
    for package, kinds in _NAMES.items():
        if name in kinds.get(kind, "").split():
            return package
    return None
