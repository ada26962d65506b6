"""What a page shows of the samples of a run, and of the learner on them: both are made again for it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.linalg import eigh

from alcore.experiment import rebuild_data, rebuild_learner
from alcore.outputs import check_outputs, class_probabilities, eval_mode, kind_of, means_of
from alcore.pools import (
    DataInfo,
    answer_of,
    evaluation_of,
    has_batch,
    labeled_ids,
    named_values,
    to_device,
    total_of,
)
from alcore.store import parse_json
from alcore_report.page.facts import Facts, class_of

Array = np.ndarray[Any, Any]
MOST_EVALUATED = 5000
"""Samples that the learner is run over for a page."""
_MOST_REST, _MOST_PICKS, _MOST_START = 2000, 1500, 500  # points of the map
_MOST_HASHED = 20_000
_MOST_VALUES = 2**25  # of the inputs of the map, taken together
_GRID = 90  # points of the decision surface along each axis
_CHUNK = 2**22  # values of the inputs that the learner is given at once


@dataclasses.dataclass(frozen=True)
class PoolMap:
    """The pool in two dimensions.

    Parameters
    ----------
    kind
        ``"plane"``: the two features themselves; ``"pca"``: the first two principal components of the inputs.
    axes
        What the axes are.
    rest, start, picks, waiting
        Shape (N, 2) each: samples that were not asked for, were labeled at the start, were picked and labeled, and were
        picked and have no label yet.
    order
        Shape (P,): the step in which each of `picks` was picked.
    total
        Number of samples of the pool.
    asked
        How many samples were picked.
    """

    kind: Literal["plane", "pca"]
    axes: tuple[str, str]
    rest: Array
    start: Array
    picks: Array
    waiting: Array
    order: Array
    total: int
    asked: int


@dataclasses.dataclass(frozen=True)
class Surface:
    """What the learner says of each point of a plane.

    Parameters
    ----------
    x, y
        Shape (G,) each.
    values
        Of two classes the probability of class 1, of more the most likely class, of a regression its value: shape
        (G, G), row by row of `y`.
    """

    x: Array
    y: Array
    values: Array
    kind: Literal["probability", "class", "value"]


@dataclasses.dataclass(frozen=True)
class SamplePredictions:
    """The learner on samples whose answers are known.

    Parameters
    ----------
    on
        ``"validation"`` or ``"pool"``.
    targets
        Shape (N, ...).
    outputs
        Probabilities (N, C) of a classifier; predictions (N, ...) of a regression.
    total
        How many such samples there are; the learner was run over N of them.
    """

    on: str
    targets: Array
    outputs: Array
    total: int


@dataclasses.dataclass(frozen=True)
class Samples:
    """What can be said of the samples of a run.

    Parameters
    ----------
    info
        What is known about the data; None where nothing is.
    missing
        What could not be made again, and why: ``"data"``, ``"learner"``, ``"map"`` and such.
    classes
        The class of each labeled request by its id, as far as it is known.
    pool_share
        The share of each class, shape (C,), in what the learner is measured on; None where that is not known.
    repeats
        How many picks have the same input as a sample that was labeled or picked before, and of how many that is known.
    pictures
        The inputs of some picks, by request: shape (H, W) or (H, W, 3), in the units of the pool.
    texts
        What the pool says of some picks, by request.
    """

    info: DataInfo | None = None
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    classes: dict[str, int] = dataclasses.field(default_factory=dict)
    pool_share: Array | None = None
    repeats: tuple[int, int] | None = None
    map: PoolMap | None = None
    surface: Surface | None = None
    predictions: SamplePredictions | None = None
    pictures: dict[str, Array] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)

    def class_name(self, code: int) -> str:
        """Return the name of a class, or its number."""
        names = () if self.info is None else self.info.names
        return names[code] if 0 <= code < len(names) else str(code)


def find_samples(facts: Facts, shown: Sequence[dict[str, Any]], *, allow_code: bool = False) -> Samples:
    """Make the data and the learner of a run again, as far as that is possible.

    Parameters
    ----------
    facts
        The run.
    shown
        The requests whose inputs are shown as pictures or texts.
    allow_code
        Whether to import ``package.module:name`` that the experiment names.
    """
    missing: dict[str, str] = {}

    def attempt(what: str, make: Callable[[], Any]) -> Any:
        """Return what is made, or None with the reason: the code of any plugin may fail."""
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - the page says so and goes on
            kind = "" if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: "
            missing[what] = f"{kind}{error}".rstrip(".")
            return None

    texts = {request["id"]: text for request in shown if (text := _generated_text(request)) is not None}
    data = attempt("data", lambda: rebuild_data(facts.run, allow_code=allow_code))
    if data is None:
        missing["learner"] = missing["data"]
        names = tuple(class_of(facts.run.label_text(request), ()) for request in facts.labeled)
        code_of = {request["id"]: code for request, code in zip(facts.labeled, names, strict=True) if code is not None}
        is_class = len(code_of) == len(facts.labeled) and all(code < 1000 for code in code_of.values())
        return Samples(None, missing, code_of if is_class else {}, repeats=_repeated_items(facts), texts=texts)
    info = data.info
    learner = attempt("learner", lambda: rebuild_learner(facts.run, data, allow_code=allow_code))
    pool = data.train if data.unlabeled is None else data.unlabeled
    predict = None if learner is None else _Predictor(learner, info)
    evaluation = attempt("evaluation", lambda: _evaluation(data))
    share = None
    if evaluation is not None and info.task == "classification":
        counts = np.bincount(np.asarray(evaluation[2]).astype(np.int64).ravel(), minlength=info.classes)
        share = counts / max(1, counts.sum())
    predictions = None
    if predict is not None and evaluation is not None:
        on, inputs, targets, total = evaluation
        outputs = attempt("predictions", lambda: predict(inputs))
        if outputs is not None:
            predictions = SamplePredictions(on, np.asarray(targets), outputs, total)
    pool_map = attempt("map", lambda: _map(facts, data, pool))
    surface = None
    if pool_map is not None and pool_map.kind == "plane" and predict is not None:
        surface = attempt("surface", lambda: _surface(pool_map, predict, info))
    inputs_of = getattr(pool, "inputs", None)
    pictures = attempt("pictures", lambda: _pictures(shown, inputs_of, info)) or {}
    texts |= attempt("texts", lambda: _texts(shown, pool)) or {}
    return Samples(
        info,
        missing,
        attempt("classes", lambda: _classes(facts, pool, info)) or {},
        share,
        attempt("repeats", lambda: _repeats(facts, data, pool)),
        pool_map,
        surface,
        predictions,
        pictures,
        texts,
    )


class _Predictor:
    """Runs a learner over inputs, chunk by chunk, and returns float64 arrays."""

    def __init__(self, learner: Any, info: DataInfo) -> None:
        self._learner, self._classifies = learner, info.task == "classification"
        floating = (
            (parameter.dtype for parameter in learner.parameters())
            if isinstance(learner, torch.nn.Module)
            else iter(())
        )
        self._dtype = next(
            (parameter for parameter in floating if parameter.is_floating_point), torch.get_default_dtype()
        )

    def __call__(self, inputs: Any) -> Array:
        rows = max(1, min(4096, _CHUNK // max(1, math.prod(inputs.shape[1:]))))
        parts = []
        with eval_mode(self._learner), torch.no_grad():
            for start in range(0, len(inputs), rows):
                chunk = to_device(inputs[start : start + rows], torch.device("cpu"), self._dtype)
                outputs = self._learner(chunk)
                if self._classifies:
                    outputs = class_probabilities(check_outputs(outputs), kind_of(self._learner))
                else:
                    outputs = means_of(outputs, kind_of(self._learner, "regression"))
                    if len(outputs) != len(chunk):  # posterior samples (K, B, ...)
                        outputs = outputs.mean(dim=0)
                parts.append(outputs.double())
        return torch.cat(parts).numpy()


def _tensor(batch: Any) -> torch.Tensor:
    if not isinstance(batch, torch.Tensor):
        raise ValueError(f"an input is a {type(batch).__name__}, not a tensor")
    return batch


def _evaluation(data: Any) -> tuple[str, torch.Tensor, torch.Tensor, int] | None:
    """Return what metrology measures on: its name, inputs and targets of at most 5000 samples, and how many it has."""
    if data.val is not None:
        total = len(data.val)
        places = torch.from_numpy(spaced(total, MOST_EVALUATED))
        if has_batch(data.val):
            inputs, targets = data.val.batch(places)
        else:
            items = [data.val[place] for place in places.tolist()]
            inputs, targets = (torch.stack([torch.as_tensor(item[part]) for item in items]) for part in (0, 1))
        return "validation", _tensor(inputs), targets, total
    if evaluation := evaluation_of(data.train):
        inputs, targets = evaluation()
        places = torch.from_numpy(spaced(len(targets), MOST_EVALUATED))
        return "pool", _tensor(inputs[places]), targets[places], len(targets)
    raise ValueError("there are no held-out samples, so the learner can't be measured on samples that it has not seen")


def spaced(count: int, most: int) -> Array:
    """Return at most so many places out of ``range(count)``, evenly spaced, the first and the last among them."""
    return np.arange(count) if count <= most else np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


# -- the map -----------------------------------------------------------------------------------------------------


def _map(facts: Facts, data: Any, pool: Any) -> PoolMap | None:
    if not callable(getattr(pool, "inputs", None)) or (total := total_of(pool)) is None:
        raise ValueError("the pool doesn't give inputs by sample id")
    asked = {
        request["sample"]: request
        for request in facts.requests
        if request["sample"] is not None and request["slot"] == 0
    }
    labeled = [(sample, request["step"]) for sample, request in asked.items() if request["kind"] is not None]
    waiting = [sample for sample, request in asked.items() if request["state"] == "open"]
    start: list[int] = []
    if data.unlabeled is None and (ids := labeled_ids(data.train)) is not None:
        start = [sample for sample in ids.tolist() if sample not in asked]
    width = math.prod(pool.inputs(torch.zeros(1, dtype=torch.int64)).shape[1:]) if total else 0
    if width < 2:
        raise ValueError("the inputs have less than two values, so there is no plane to draw")
    room = _MOST_VALUES // width
    if room < 50:
        raise ValueError(f"an input has {width} values, which is too large for a map")
    part = min(1.0, room / (_MOST_REST + _MOST_PICKS + _MOST_START))
    kept = [labeled[i] for i in spaced(len(labeled), int(_MOST_PICKS * part))]
    start = [start[i] for i in spaced(len(start), int(_MOST_START * part))]
    waiting = [waiting[i] for i in spaced(len(waiting), int(_MOST_START * part))]
    rest = _rest(total, {*asked, *start}, int(_MOST_REST * part))
    groups = [rest, start, [sample for sample, _ in kept], waiting]
    inputs = [
        _tensor(pool.inputs(torch.tensor(group, dtype=torch.int64))).double().flatten(1).numpy() for group in groups
    ]
    points, axes = (inputs, ("feature 1", "feature 2")) if width == 2 else _components(inputs)
    order = np.array([step for _, step in kept], dtype=np.int64)
    rest_, start_, picks_, waiting_ = points
    return PoolMap("plane" if width == 2 else "pca", axes, rest_, start_, picks_, waiting_, order, total, len(asked))


def _rest(total: int, taken: set[int], most: int) -> list[int]:
    """Return at most so many of the other samples, the same ones each time."""
    generator = np.random.default_rng(0)
    size = min(total, most + len(taken))
    ids = generator.choice(total, size, replace=False) if size < total else np.arange(total)
    return [sample for sample in ids.tolist() if sample not in taken][:most]


def _components(groups: list[Array]) -> tuple[list[Array], tuple[str, str]]:
    """Return the first two principal components of rows, and how much of the variance they have."""
    rows = np.concatenate(groups)
    rows = np.nan_to_num(rows, posinf=0.0, neginf=0.0)
    middle, spread = rows.mean(axis=0), rows.std(axis=0)
    rows = (rows - middle) / np.where(spread > 0, spread, 1.0)
    if rows.shape[1] <= 1024:
        values, vectors = _largest_two(rows.T @ rows)
    else:  # the same directions, from the products of rows
        few = rows[spaced(len(rows), 1000)]
        values, weights = _largest_two(few @ few.T)
        vectors = few.T @ weights / np.sqrt(np.maximum(values, 1e-12))
        values = values * (len(rows) / len(few))
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])
    share = values / max(float((rows**2).sum()), 1e-12)
    points = rows @ vectors
    ends = np.cumsum([len(group) for group in groups])[:-1]
    names = (f"component 1 ({share[0]:.0%} of the variance)", f"component 2 ({share[1]:.0%})")
    return np.split(points, ends), names


def _largest_two(matrix: Array) -> tuple[Array, Array]:
    """Return the two largest eigenvalues of a symmetric matrix, and their eigenvectors as columns."""
    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[size - 2, size - 1])
    return values[::-1], vectors[:, ::-1]


def _surface(pool_map: PoolMap, predict: _Predictor, info: DataInfo) -> Surface:
    points = np.concatenate([pool_map.rest, pool_map.start, pool_map.picks, pool_map.waiting])
    low, high = points.min(axis=0), points.max(axis=0)
    edge = 0.04 * np.maximum(high - low, 1e-9)
    x, y = (np.linspace(low[i] - edge[i], high[i] + edge[i], _GRID) for i in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    outputs = predict(torch.from_numpy(grid))
    if info.task == "regression":
        return Surface(x, y, outputs.reshape(_GRID, _GRID, -1)[..., 0], "value")
    if outputs.shape[1] == 2:
        return Surface(x, y, outputs[:, 1].reshape(_GRID, _GRID), "probability")
    return Surface(x, y, outputs.argmax(axis=1).reshape(_GRID, _GRID), "class")


# -- picks -------------------------------------------------------------------------------------------------------


def _classes(facts: Facts, pool: Any, info: DataInfo) -> dict[str, int]:
    """Return the classes of the labels: of the value that was given, or of the pool's own answer."""
    if info.task != "classification":
        return {}
    codes: dict[str, int] = {}
    answer = answer_of(pool)
    for request in facts.labeled:
        code: int | None = None
        if request["kind"] != "id":
            code = class_of(facts.run.label_text(request), info.names)
        elif answer is not None:
            target = torch.as_tensor(answer(request["sample"])[1])
            code = int(target) if target.numel() == 1 else None
        if code is not None:
            codes[request["id"]] = code
    return codes


def _repeats(facts: Facts, data: Any, pool: Any) -> tuple[int, int] | None:
    """Count picks with the input of a sample that was labeled or picked before."""
    asked = [request["sample"] for request in facts.requests if request["sample"] is not None and request["slot"] == 0]
    if not asked or not callable(getattr(pool, "inputs", None)):
        return _repeated_items(facts)
    start: list[int] = []
    if data.unlabeled is None and (ids := labeled_ids(data.train)) is not None:
        picked = set(asked)
        start = [sample for sample in ids.tolist() if sample not in picked]
    hashed = [*start[:_MOST_HASHED], *asked[:_MOST_HASHED]]
    seen: set[bytes] = set()
    repeats = 0
    for begin in range(0, len(hashed), 256):
        part = hashed[begin : begin + 256]
        rows = _tensor(pool.inputs(torch.tensor(part))).contiguous().flatten(1)
        for place, row in enumerate(rows.numpy(), begin):
            digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            repeats += digest in seen and place >= len(start[:_MOST_HASHED])
            seen.add(digest)
    return repeats, min(len(asked), _MOST_HASHED)


def _repeated_items(facts: Facts) -> tuple[int, int] | None:
    items = [request["item"] for request in facts.requests if request["item"] is not None and request["slot"] == 0]
    return (sum(count - 1 for count in Counter(items).values()), len(items)) if items else None


def _pictures(shown: Sequence[dict[str, Any]], inputs_of: Any, info: DataInfo) -> dict[str, Array]:
    """Return the inputs of picks that are images: (H, W), (1 or 3, H, W) or (H, W, 1 or 3)."""
    shape = tuple(info.shape)
    first = len(shape) == 3 and shape[0] in (1, 3)
    last = len(shape) == 3 and not first and shape[2] in (1, 3)
    if not (len(shape) == 2 or first or last) or not callable(inputs_of):
        return {}
    if min(shape[1:] if first else shape[:2]) < 4:
        return {}
    picked = [request for request in shown if request["sample"] is not None]
    if not picked:
        return {}
    rows = _tensor(inputs_of(torch.tensor([request["sample"] for request in picked]))).double().numpy()
    if first:
        rows = np.moveaxis(rows, 1, -1)
    if rows.ndim == 4 and rows.shape[-1] == 1:
        rows = rows[..., 0]
    step = max(1, math.ceil(max(rows.shape[1:3]) / 96))
    return {request["id"]: row[::step, ::step] for request, row in zip(picked, rows, strict=True)}


def _texts(shown: Sequence[dict[str, Any]], pool: Any) -> dict[str, str]:
    """Return what people who label see of each pick: the columns of its file, each as ``name: value``."""
    picked = [request for request in shown if request["sample"] is not None]
    values = named_values(pool, [request["sample"] for request in picked])
    texts = {}
    for request in picked:
        cells = {name: cell for name, cell in values.get(request["sample"], {}).items() if cell not in (None, "")}
        texts[request["id"]] = "; ".join(f"{name}: {cell}" for name, cell in cells.items())
    return {key: text for key, text in texts.items() if text}


def _generated_text(request: dict[str, Any]) -> str | None:
    """Return a generated input that is a text."""
    if request["item"] is None or len(request["item"]) > 20_000:
        return None
    try:
        value = parse_json(request["item"])
    except ValueError:
        return None
    return value if isinstance(value, str) else None


# -- errors of fields --------------------------------------------------------------------------------------------


def is_field(predictions: SamplePredictions) -> bool:
    """Return whether the targets are fields: two axes or more a sample, or one of at least 16 values."""
    return is_field_shape(predictions.targets.shape[1:])


def is_field_shape(shape: Sequence[int]) -> bool:
    """Return whether a target of this shape is a field."""
    return len(shape) > 1 or (len(shape) == 1 and shape[0] >= 16)


def regression_values(predictions: SamplePredictions) -> Array | None:
    """Return the predictions in the shape of the targets; None if they don't fit."""
    targets, outputs = predictions.targets, predictions.outputs
    return outputs.reshape(targets.shape) if outputs.size == targets.size else None


def relative_errors(targets: Array, values: Array) -> Array:
    """Return ``||f - y|| / ||y||`` of each sample, shape (N,); NaN where y is 0 everywhere."""
    flat, error = targets.reshape(len(targets), -1), (values - targets).reshape(len(targets), -1)
    norm = np.linalg.norm(flat, axis=1)
    errors: Array = np.linalg.norm(error, axis=1) / np.where(norm > 0, norm, np.nan)
    return errors


def calibration(predictions: SamplePredictions, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return mean confidence, accuracy and number of samples of each bin of the confidence that has any.

    Bin i of M has confidences in (i/M, (i + 1)/M] (Guo et al., On calibration of modern neural networks, ICML 2017).
    """
    confidence = predictions.outputs.max(axis=1)
    correct = predictions.outputs.argmax(axis=1) == predictions.targets.astype(np.int64).reshape(-1)
    place = np.searchsorted(np.arange(1, bins) / bins, confidence)
    filled = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            filled.append((float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum())))
    return filled


def calibration_error(predictions: SamplePredictions) -> float:
    """Return the expected calibration error of ten bins."""
    bins = calibration(predictions)
    total = sum(count for _, _, count in bins)
    return sum(abs(mean - right) * count for mean, right, count in bins) / max(1, total)
