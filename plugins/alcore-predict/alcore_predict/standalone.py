"""Predict with an exported learner: ``python predict.py NEW.csv [PREDICTIONS.csv]``.

It needs NumPy, PyTorch and safetensors, and the files beside it; not alcore. Of a classification it gives the class,
its probability, the entropy in nats, and the probability of each class; of a regression the value. Of an ensemble it
also gives how much its members disagree, and of a learner that predicts variances the standard deviation and the ends
of the interval that a label is in with a probability of 90%. Rows are counted from 0, without the header. Fields and
maps are written to a file that ends in ``.npz``.
"""

from __future__ import annotations

import csv
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
QUANTILE = 1.6448536269514722  # of the standard normal distribution at 95%: a central interval of 90%


def read_inputs(path: str) -> torch.Tensor:
    """Return the learner's inputs for all rows of a file."""
    description = HERE / "preprocessing.json"
    if description.is_file():
        import inputs  # type: ignore[import-not-found]  # the file inputs.py of the export

        return torch.from_numpy(inputs.read(json.loads(description.read_text(encoding="utf-8")), path))
    with np.load(path, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["inputs" if "inputs" in arrays else "X"])


def predict(path: str) -> dict[str, Any]:
    """Return the predictions for all rows of a file, as arrays."""
    import model  # type: ignore[import-not-found]  # the file model.py of the export

    about = json.loads((HERE / "learner.json").read_text(encoding="utf-8"))
    learner, rows = model.load(HERE), read_inputs(path)
    rows = rows.to(getattr(torch, about["dtype"])) if rows.is_floating_point() or about["casts"] else rows
    parts = [learner(batch) for batch in torch.split(rows, 1024)]
    outputs = torch.cat(parts, dim=1 if parts[0].dim() == 3 else 0)
    if about["task"] == "classification":
        return classes(outputs.double(), about["outputs"])
    return quantities(outputs, about["outputs"])


def quantities(outputs: torch.Tensor, kind: str) -> dict[str, Any]:
    """Return predicted values, and what is known of their spread, of the outputs of a regression."""
    several = outputs.dim() == 3  # one output of each member of an ensemble
    predicts_variances = kind == "mean-variance"
    means, *variances = outputs.chunk(2, dim=2 if several else 1) if predicts_variances else [outputs]
    values = means.double().mean(dim=0).to(means.dtype) if several else means
    parts = [variance.double().mean(dim=0) if several else variance.double() for variance in variances]
    parts += [means.double().var(dim=0, correction=0)] if several else []
    if not parts:
        return {"values": single(values)}
    std = torch.stack(parts).sum(dim=0).sqrt()
    if not predicts_variances:
        return {"values": single(values), "std": single(std)}
    reach = QUANTILE * std
    low, high = single(values.double() - reach), single(values.double() + reach)
    return {"values": single(values), "std": single(std), "low": low, "high": high}


def classes(outputs: torch.Tensor, kind: str) -> dict[str, Any]:
    """Return codes of classes, their probabilities and entropies, of the outputs of a classifier."""
    if outputs.dim() > 3:  # one prediction for each position of a map
        outputs = outputs.movedim(1, -1)
    elif outputs.dim() == 1:
        outputs = outputs[:, None]
    if outputs.shape[-1] == 1:
        yes = outputs if kind == "probabilities" else torch.sigmoid(outputs)
        shares = torch.cat([1 - outputs if kind == "probabilities" else torch.sigmoid(-outputs), yes], dim=-1)
    else:
        shares = outputs if kind == "probabilities" else torch.softmax(outputs, dim=-1)
    of_members = {}
    if outputs.dim() == 3:  # members of an ensemble
        members = torch.special.entr(shares).sum(dim=-1).mean(dim=0)
        shares = shares.mean(dim=0)
        information = (torch.special.entr(shares).sum(dim=-1) - members).clamp_min(0)
        of_members["mutual_information"] = information.numpy()
    entropy = torch.special.entr(shares).sum(dim=-1).numpy()
    shares = shares.movedim(-1, 1)
    return {"values": shares.argmax(dim=1).numpy(), "probabilities": shares.numpy(), "entropy": entropy, **of_members}


def single(values: torch.Tensor) -> Any:
    """Return an array, without the axis of a single quantity."""
    values = values[:, 0] if values.dim() == 2 and values.shape[1] == 1 else values
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def table(prediction: dict[str, Any]) -> list[list[Any]]:
    """Return predictions as rows of a table, with a header."""
    values = prediction["values"]
    if "probabilities" in prediction:
        shares, told = prediction["probabilities"], [name for name in ("mutual_information",) if name in prediction]
        names = json.loads((HERE / "learner.json").read_text(encoding="utf-8"))["classes"] or range(shares.shape[1])
        header = ["row", "prediction", "probability", "entropy", *told, *(f"p({name})" for name in names)]
        return [header] + [
            [row, names[code], shares[row, code], *(prediction[name][row] for name in ["entropy", *told]), *shares[row]]
            for row, code in enumerate(values.tolist())
        ]
    width = 1 if values.ndim == 1 else values.shape[1]
    numbers = [""] if width == 1 else [f"_{place + 1}" for place in range(width)]
    parts = [("prediction", values)] + [
        (name, prediction[name]) for name in ("std", "low", "high") if name in prediction
    ]
    header = ["row", *(f"{name}{number}" for name, _ in parts for number in numbers)]
    return [header] + [
        [row, *(cell for _, array in parts for cell in np.atleast_1d(array[row]))] for row in range(len(values))
    ]


def main(arguments: list[str]) -> None:
    """Read a file, and write the predictions to another one, or to the terminal."""
    if len(arguments) not in (1, 2):
        sys.exit("usage: python predict.py NEW.csv [PREDICTIONS.csv]")
    warnings.showwarning = lambda message, *_where: print(f"warning: {message}", file=sys.stderr)
    try:
        prediction = predict(arguments[0])
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{arguments[0]}: {error}")
    target = arguments[1] if len(arguments) == 2 else None
    if target is not None and target.endswith(".npz"):
        np.savez(target, **prediction)
    elif prediction["values"].ndim > 2:
        sys.exit("predictions of this shape don't fit in a table; name a file that ends in .npz for them")
    elif target is not None:
        with Path(target).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table(prediction))
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(table(prediction))


if __name__ == "__main__":
    main(sys.argv[1:])
