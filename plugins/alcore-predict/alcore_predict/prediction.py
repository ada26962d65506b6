"""Predict with the learner of a run: a new file becomes inputs, and outputs become classes or values."""

from __future__ import annotations

import csv
import dataclasses
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError, did_you_mean
from alcore.experiment import BuiltInPythonError, TrainedRun
from alcore.outputs import (
    MCDropout,
    bald,
    check_tensor,
    class_probabilities,
    dropout_layers,
    evaluating,
    first_rows,
    kind_of,
    mean_and_variance,
    means_of,
)
from alcore.pools import to_device
from alcore.protocols import DataInfo, Preprocessing
from alcore.store import Run, cant_write, export_json, write_whole

_ROWS = 1024  # in one forward pass
_DRAWS = 20  # posterior samples of MC dropout
_NAMES = ("inputs", "X", "x")  # of the array of inputs in an NPZ file
_DAMAGED = (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
FORMATS = (".csv", ".json", ".npz")
"""The endings of files that predictions are written to."""

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a learner predicts for the rows of a file.

    Parameters
    ----------
    run
        The id of the run.
    checkpoint
        The file of the checkpoint that the weights are from.
    step
        The step that trained them; None where no training is done yet.
    info
        What is known about the data.
    values
        Shape (N, ...): of a classification the code of the most likely class, int64; of a regression the predicted
        values in the units of the target. Fields and maps have more axes.
    probabilities
        Of a classification, float64, shape (N, C, ...); of a learner that returns posterior samples, their mean.
    entropy
        Of a classification: entropy of these probabilities in nats, float64, shape (N, ...).
    mutual_information
        Of a classification with posterior samples: what the class would tell of the model (BALD), in nats, float64,
        shape (N,).
    std
        Of a regression whose learner predicts variances or gives posterior samples: the standard deviation of the
        predictive distribution, float64, in the shape of `values`; of samples without variances of their own it is
        that of the samples, which leaves out the noise of labels.
    low, high
        Of a regression whose learner predicts variances: the ends of the central interval that a label is in with the
        probability `level`, for a normal distribution; float64, in the shape of `values`.
    level
        The probability of the intervals.
    posterior
        Where posterior samples are from: ``"the learner"``, such as the members of an ensemble, or ``"MC dropout"``;
        None without any.
    samples
        How many posterior samples there are.
    """

    run: str
    checkpoint: str
    step: int | None
    info: DataInfo
    values: Array
    probabilities: Array | None = None
    entropy: Array | None = None
    mutual_information: Array | None = None
    std: Array | None = None
    low: Array | None = None
    high: Array | None = None
    level: float = 0.9
    posterior: str | None = None
    samples: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    @property
    def flat(self) -> bool:
        """Whether there are few enough values a row for a table: a class, or up to 16 quantities."""
        return self.values.ndim == 1 or (self.values.ndim == 2 and self.values.shape[1] <= 16)

    def class_name(self, code: int) -> str:
        """Return the name of a class; its code where classes have no names."""
        return self.info.names[code] if code < len(self.info.names) else str(code)

    def columns(self) -> list[str]:
        """Return the names of what `rows` yields."""
        if self.probabilities is not None:
            names = [f"p({self.class_name(code)})" for code in range(self.probabilities.shape[1])]
            told = [] if self.mutual_information is None else ["mutual_information"]
            return ["row", "prediction", "probability", "entropy", *told, *names]
        width = 1 if self.values.ndim == 1 else self.values.shape[1]
        numbers = [""] if width == 1 else [f"_{place + 1}" for place in range(width)]
        return ["row", *(f"{name}{number}" for name in ("prediction", *self._spread()) for number in numbers)]

    def _spread(self) -> dict[str, Array]:
        """Return what is known of the spread of a regression, by the name of its column."""
        spread = {"std": self.std, "low": self.low, "high": self.high}
        return {name: array for name, array in spread.items() if array is not None}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what is predicted for each row of the file, counted from 0 without the header.

        Of a classification: ``prediction``, the name of the class, its ``probability``, ``entropy``,
        ``mutual_information`` where it is known, and ``p(NAME)`` of each class. Of a regression: ``prediction``, and
        ``std``, ``low`` and ``high`` where they are known, numbered where there are several quantities.

        Raises
        ------
        UsageError
            For fields and maps, which no table holds.
        """
        if not self.flat:
            raise UsageError(
                f"predictions of shape {self.values.shape[1:]} a row don't fit in a table; write them as arrays, with "
                "--output FILE.npz, or from Python with write('FILE.npz')."
            )
        names = self.columns()
        for row in range(len(self)):
            yield dict(zip(names, [row, *self._cells(row)], strict=True))

    def _cells(self, row: int) -> list[Any]:
        if self.probabilities is not None and self.entropy is not None:
            code = int(self.values[row])
            told = [] if self.mutual_information is None else [float(self.mutual_information[row])]
            shares = self.probabilities[row].tolist()
            return [self.class_name(code), shares[code], float(self.entropy[row]), *told, *shares]
        told = [cell for array in self._spread().values() for cell in np.atleast_1d(array[row]).tolist()]
        return [*(_shortest(value) for value in np.atleast_1d(self.values[row])), *told]

    def arrays(self) -> dict[str, Any]:
        """Return the predictions as arrays: ``values`` and those of the others that there are; ``names`` of classes."""
        arrays = {
            name: getattr(self, name)
            for name in ("values", "probabilities", "entropy", "mutual_information", "std", "low", "high")
            if getattr(self, name) is not None
        }
        return arrays | ({"names": np.array(self.info.names)} if self.info.names else {})

    def as_json(self) -> dict[str, Any]:
        """Return the predictions as JSON."""
        return {
            "run_id": self.run,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "task": self.info.task,
            "classes": list(self.info.names),
            "posterior": self.posterior,
            "samples": self.samples,
            "level": None if self.low is None else self.level,
            "predictions": list(self.rows()),
        }

    def write(self, path: Path) -> None:
        """Write the predictions to a file, which appears whole.

        Parameters
        ----------
        path
            A file that ends in ``.csv`` or ``.json``, with what `rows` yields, or in ``.npz``, with `arrays`.

        Raises
        ------
        UsageError
            For another ending, or a folder that does not exist.
        """
        check_output(path)
        if path.suffix.lower() == ".npz":
            hidden = path.with_name(f".{path.name}.part")
            try:
                with hidden.open("wb") as stream:
                    np.savez(stream, **self.arrays())
                hidden.replace(path)
            except OSError as error:
                raise cant_write(path, error) from error
            finally:
                hidden.unlink(missing_ok=True)
        elif path.suffix.lower() == ".json":
            write_whole(path, export_json(self.as_json()), durable=False)
        else:
            write_whole(path, self._csv(), durable=False)

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return text.getvalue()


def check_output(path: Path) -> None:
    """Raise `UsageError` for a file that predictions can't be written to."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: predictions are written as {', '.join(FORMATS)}, and this name ends otherwise.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path} can't be written: there is no folder {path.absolute().parent}.")
    if path.is_dir():
        raise UsageError(f"{path} can't be written: it is a folder.")


def predict(
    run: Run,
    path: Path,
    *,
    step: int | None = None,
    learner: Any = None,
    preprocessing: Preprocessing | None = None,
    inference_fn: Callable[[Any, Any], Any] | None = None,
    allow_code: bool = False,
    level: float = 0.9,
) -> Predictions:
    """Predict the target of each row of a new file with the learner of a run, which may be under way.

    Parameters
    ----------
    run
        The run.
    path
        A file of the kind that the run's data was made of, CSV for instance, where its data knows how its inputs were
        made (``Data.preprocessing``). For other data, an NPZ file with an array ``inputs``, or ``X``, of the learner's
        inputs: shape (N, ...).
    step
        Use the weights that this step trained; those of the last checkpoint where it is None.
    learner
        The learner, or the name of what makes it, in place of the one that the run's experiment names. A run that was
        built in Python needs it.
    preprocessing
        What makes inputs of the file, such as the ``preprocessing`` of its `alcore.Data`; as the run has it where it is
        None. A run that was built in Python has none.
    inference_fn
        Called as ``inference_fn(learner, inputs)`` for the outputs, as that of the Driver.
    allow_code
        Whether to import ``package.module:name`` that the run's experiment names.
    level
        Probability of the intervals of a regression whose learner predicts variances, between 0 and 1.

    Returns
    -------
    Predictions
        The same for the same weights and file. Posterior samples are the learner's own, or 20 by MC dropout for a
        learner with dropout layers.

    Raises
    ------
    UsageError
        For a file that doesn't fit, a learner that can't be built, or a checkpoint that is missing or damaged.

    Notes
    -----
    The weights are read from the checkpoint, a safetensors file whose digest the run has; nothing that an export wrote
    is read. A learner that is fitted whole, as those of scikit-learn, is fitted again to the labels of the run, so the
    file of the run's data must be there and must not have changed.
    """
    if not 0 < level < 1:
        raise UsageError(f"level is {level}; the probability of an interval is between 0 and 1, for instance 0.9.")
    trained = TrainedRun(run, allow_code)
    checkpoint = trained.checkpoint(step)
    model = trained.learner(checkpoint, learner)
    info = _info(trained)
    inputs = _inputs(trained, info, path, preprocessing)
    dtype = trained.dtype(model)

    def infer(batch: torch.Tensor) -> torch.Tensor:
        placed = to_device(batch, torch.device("cpu"), dtype)
        try:
            with evaluating(model):
                return check_tensor(model(placed) if inference_fn is None else inference_fn(model, placed))
        except (RuntimeError, TypeError, IndexError) as error:
            raise UsageError(
                f"the learner {type(model).__name__} can't take the inputs of {path.name}, {placed.dtype} of shape "
                f"{tuple(placed.shape[1:])} each: {' '.join(str(error).split())}."
            ) from error

    outputs, samples, posterior = _outputs(model, infer, inputs)
    kind = kind_of(model, info.task)
    return Predictions(
        run=run.folder.resolve().name,
        checkpoint=checkpoint.file,
        step=checkpoint.step,
        info=info,
        posterior=posterior,
        samples=0 if samples is None else len(samples),
        level=level,
        **(
            _classification(outputs, samples, kind)
            if info.task == "classification"
            else _regression(outputs, samples, kind, level)
        ),
    )


def _info(trained: TrainedRun) -> DataInfo:
    try:
        return trained.info()
    except BuiltInPythonError:
        raise UsageError(
            f"run {trained.run.folder.name} was built in Python, with pools that don't say what their data is; give "
            "the training pool an `info` (alcore.DataInfo) with the task and the number of classes."
        ) from None


def _inputs(trained: TrainedRun, info: DataInfo, path: Path, given: Preprocessing | None) -> torch.Tensor:
    if not path.is_file():
        raise UsageError(f"there is no file {path}, or it is no regular file.")
    try:
        preprocessing = trained.preprocessing() if given is None else given
    except BuiltInPythonError:
        preprocessing = None
    if preprocessing is not None:
        return torch.as_tensor(preprocessing.read(path))
    if path.suffix.lower() != ".npz":
        raise UsageError(
            f"{path.name}: this run's data does not say how inputs are made of a file, so give an NPZ file with the "
            "learner's inputs, as numpy.savez('new.npz', inputs=...) writes it."
        )
    return _array(info, path)


def _array(info: DataInfo, path: Path) -> torch.Tensor:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            name = next((wanted for wanted in _NAMES if wanted in names), names[0] if len(names) == 1 else None)
            array = None if name is None else archive[name]
    except _DAMAGED as error:
        raise UsageError(f"{path.name} can't be read as NPZ: {error}.") from None
    except AttributeError:
        raise UsageError(f"{path.name} is not an NPZ file; write it with numpy.savez(path, inputs=...).") from None
    if array is None:
        raise UsageError(f"{path.name}: there is no array 'inputs' or 'X': {did_you_mean('inputs', names)}.")
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{path.name}: array {name!r} has the type {array.dtype}; numbers are needed.")
    shape = info.shape or ((info.features,) if info.features else None)
    if array.ndim == 0 or (shape is not None and array.shape[1:] != tuple(shape)):
        needed = "('N', ...)" if shape is None else f"{('N', *shape)}"
        raise UsageError(f"{path.name}: array {name!r} has the shape {array.shape}; the run's inputs need {needed}.")
    return torch.from_numpy(np.ascontiguousarray(array))


def _outputs(
    model: Any, infer: Callable[[Any], torch.Tensor], inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, str | None]:
    """Return outputs (N, ...), their mean over the learner's own posterior samples included; and posterior samples."""
    if not len(inputs):
        raise UsageError("the file has no rows.")
    sampler: MCDropout | None = None
    of_batches, drawn = [], []
    for number, batch in enumerate(torch.split(inputs, _ROWS)):
        rows = len(batch)
        outputs = first_rows(infer(batch), rows, rows)
        of_batches.append(outputs)
        if outputs.dim() > 2:
            continue
        if not number and dropout_layers(model):
            sampler = MCDropout(model, _DRAWS, 0)
        if sampler is not None:
            drawn.append(sampler(lambda batch=batch: infer(batch)))  # type: ignore[misc]
    if of_batches[0].dim() == 3:
        samples = torch.cat(of_batches, dim=1)
        return samples, samples, "the learner"
    return torch.cat(of_batches), torch.cat(drawn, dim=1) if drawn else None, "MC dropout" if drawn else None


def _classification(outputs: torch.Tensor, samples: torch.Tensor | None, kind: str) -> dict[str, Any]:
    outputs = outputs.double()
    if outputs.dim() > 3:  # a map: a class for each position
        flat = outputs.movedim(1, -1)
        probabilities = class_probabilities(flat.reshape(-1, flat.shape[-1]), kind)
        probabilities = probabilities.reshape(*flat.shape[:-1], -1).movedim(-1, 1)
    else:
        probabilities = class_probabilities(outputs, kind)
    arrays = {
        "values": probabilities.argmax(dim=1).numpy(),
        "probabilities": probabilities.numpy(),
        "entropy": torch.special.entr(probabilities).sum(dim=1).numpy(),
    }
    if samples is not None:
        arrays["mutual_information"] = bald(samples, kind).numpy()
    return arrays


def _regression(outputs: torch.Tensor, samples: torch.Tensor | None, kind: str, level: float) -> dict[str, Any]:
    means = means_of(outputs, kind)
    values = means.double().mean(dim=0).to(means.dtype) if means.dim() == 3 else means
    arrays = {"values": _squeezed(values)}
    if samples is None and kind != "mean-variance":
        return arrays
    spread = mean_and_variance(outputs if samples is None else samples, kind)
    deviation = spread.variance.sqrt()
    arrays["std"] = _squeezed(deviation)
    if spread.noise is not None:
        reach = NormalDist().inv_cdf((1 + level) / 2) * deviation
        center = (
            spread.mean.double()
        )  # by MC dropout another one than `values`; its coverage is what metrology measures
        arrays["low"], arrays["high"] = _squeezed(center - reach), _squeezed(center + reach)
    return arrays


def _squeezed(values: torch.Tensor) -> Array:
    """Return an array, with the axis of a single quantity left out."""
    if values.dim() == 2 and values.shape[1] == 1:
        values = values[:, 0]
    array: Array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


def _shortest(value: Any) -> float:
    """Return a number whose text has no more digits than its precision."""
    return float(str(value))
