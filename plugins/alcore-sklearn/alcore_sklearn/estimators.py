"""Which estimators there are, and how one is made from a name and plain values.

A name is looked up in the list of scikit-learn's own classifiers and regressors. Nothing is imported because an
experiment file names it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.utils import all_estimators

from alcore.errors import UsageError, did_you_mean
from alcore.randomness import derive_seed, preserve_rng_state

Output = Literal["probabilities", "decision", "values"]


_MANY_LABELS = {"ClassifierChain", "MultiOutputClassifier"}  # they classify each sample several times


@functools.cache
def available() -> Mapping[str, type[Any]]:
    """Return scikit-learn's classifiers and regressors by their full names, such as ``sklearn.svm.SVC``."""
    with preserve_rng_state():  # some modules draw from a global generator when they are imported
        estimators = all_estimators(type_filter=["classifier", "regressor"])
    return {_public_name(cls): cls for name, cls in estimators if name not in _MANY_LABELS}


def full_name(name: str) -> str:
    """Return the full name of an estimator from that, or from the name of its class alone.

    Raises
    ------
    UsageError
        When scikit-learn has no classifier or regressor of this name.
    """
    names = available()
    if name in names:
        return name
    by_class = {full.rpartition(".")[2]: full for full in names}
    if name in by_class:
        return by_class[name]
    near = difflib.get_close_matches(name, [*names] if "." in name else [*by_class], n=3)
    guess = f"did you mean {' or '.join(near)}?" if near else "it may be of another package, or misspelled."
    raise UsageError(
        f"{name!r} is not a classifier or regressor of scikit-learn: {guess} alcore_sklearn.available() lists all "
        f"{len(names)}; no other class is made."
    )


def build(name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Make an estimator, unfitted.

    Parameters
    ----------
    name
        ``sklearn.svm.SVC``, or ``SVC`` for short.
    parameters
        Its arguments. A mapping with a key ``use`` stands for an estimator in turn: ``use`` names it, and the
        other keys are its arguments.

    Raises
    ------
    UsageError
        When there is no such estimator or argument, or scikit-learn refuses a value.
    """
    full = full_name(name)
    cls, given = available()[full], dict(parameters or {})
    accepted = inspect.signature(cls).parameters
    for key in given:
        if key not in accepted:
            raise UsageError(f"{full} has no parameter {key!r}: {did_you_mean(key, accepted)}.")
    for key, about in accepted.items():
        if about.default is about.empty and about.kind is not about.VAR_KEYWORD and key not in given:
            raise UsageError(f"{full} needs its parameter {key!r}; give it among the parameters.")
    estimator = cls(**{key: _built(value) for key, value in given.items()})
    validate = getattr(estimator, "_validate_params", None)  # what fit() calls first; told here before a run starts
    if callable(validate):
        try:
            validate()
        except ValueError as error:
            raise UsageError(f"{full}: {error}") from error
    return estimator


def seeded(template: Any, seed: int) -> Any:
    """Return an unfitted copy whose random states, and those of estimators inside it, are set where they are None."""
    estimator = clone(template)
    free = {
        name: derive_seed(seed, name) % 2**32
        for name, value in estimator.get_params().items()
        if value is None and name.rpartition("__")[2] == "random_state"
    }
    return estimator.set_params(**free)


def output_of(estimator: Any, wanted: Literal["auto", "probabilities", "decision"], name: str) -> Output:
    """Return what is asked of a classifier: ``predict_proba`` or ``decision_function``.

    Parameters
    ----------
    estimator
        Unfitted.
    wanted
        ``"auto"`` is probabilities if the estimator offers them.
    name
        What messages call it.

    Raises
    ------
    UsageError
        When the estimator doesn't offer what is wanted.
    """
    offered = _offered(estimator) or _offered(_tried(estimator))
    if wanted == "auto" and offered:
        return offered[0]
    for output in offered:
        if output == wanted:
            return output
    if offered:
        raise UsageError(f"{name} with these parameters offers no {wanted}, but {offered[0]}; ask for that.")
    raise UsageError(f"{name} with these parameters has neither predict_proba nor decision_function; use another.")


def plain(value: Any) -> Any:
    """Return a value as numbers, strings, lists and dicts; what is none of these by the name of its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _offered(estimator: Any) -> list[Output]:
    methods: dict[str, Output] = {"predict_proba": "probabilities", "decision_function": "decision"}
    return [output for method, output in methods.items() if callable(getattr(estimator, method, None))]


def _tried(estimator: Any) -> Any:
    """Return a copy that was fitted on a few points: one made of others may tell only then what it offers."""
    try:
        return seeded(estimator, 0).fit(np.arange(40.0)[:, None], np.arange(40) % 2)
    except (ValueError, TypeError):
        return None


def _public_name(cls: type[Any]) -> str:
    """Return the name without the private modules that a class is defined in."""
    words = cls.__module__.split(".")
    public = next((i for i, word in enumerate(words) if word.startswith("_")), len(words))
    return ".".join([*words[:public], cls.__name__])


def _built(value: Any) -> Any:
    """Return a value of a parameter, with estimators in place of the mappings that describe them."""
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        return build(value["use"], {key: item for key, item in value.items() if key != "use"})
    if isinstance(value, list | tuple):
        built = [_built(item) for item in value]
        named = len(built) == 2 and isinstance(built[0], str) and hasattr(built[1], "get_params")
        return tuple(built) if named else built  # TOML has no tuples: [["a", {use = ...}], ...]
    return value
