"""Weights from a file, for a learner that is to begin with them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from alcore.errors import UsageError
from alcore.inference.learner import load_model, model_state
from alcore.store import checkpoints
from alcore.store.files import StorageError, sha256_of

_CHECKPOINT = "alcore"  # the key in the header of a checkpoint
_LISTED = 3


def load_weights(learner: Any, path: Path, sha256: str | None = None) -> str:
    """Load weights from a safetensors file into a learner.

    Parameters
    ----------
    learner
        With ``state_dict`` and ``load_state_dict``, as an `nn.Module` has them.
    path
        A file with a tensor for each tensor of the ``state_dict``, under the same name and of the same shape, such as
        ``model.safetensors`` of an export; or a checkpoint of a run. Other types of numbers are cast.
    sha256
        What the SHA-256 of the file must be, if that is known.

    Returns
    -------
    str
        The SHA-256 of the file.

    Raises
    ------
    UsageError
        If the file can't be read, is not the expected one, or its names or shapes are not those of the learner.
    """
    digest, weights = _read(path, sha256)
    state = model_state(learner)
    own = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not own or not callable(getattr(learner, "load_state_dict", None)):
        raise UsageError(
            f"the learner {type(learner).__name__} has no weights that {path.name} could be loaded into; leave the "
            "weights out, or take a learner that is a torch.nn.Module."
        )
    if faults := _differences(own, weights):
        raise UsageError(
            f"the weights in {path} are not those of the learner {type(learner).__name__}: {'; '.join(faults)}. Build "
            "the learner as it was built for them (learner.json of an export has its parameters), or give other "
            "weights."
        )
    load_model(learner, {**state, **weights})
    return digest


def _read(path: Path, sha256: str | None) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        raise UsageError(
            f"there is no weights file {path}, a safetensors file such as an export has; put it there, or leave "
            "driver.weights (--weights) out, with weights_sha256, to begin with weights made anew."
        )
    try:
        digest = sha256_of(path)
        if sha256 is not None and digest != sha256.lower():
            raise UsageError(
                f"{path} is not the weights file that this experiment was written with: its SHA-256 is {digest}, and "
                f"driver.weights_sha256 is {sha256}. Give that file, or take weights_sha256 out to begin with this one."
            )
        with safe_open(path, framework="pt") as file:
            if _CHECKPOINT in (file.metadata() or {}):
                return digest, dict(checkpoints.load(path, digest)["model"])
            return digest, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise UsageError(
            f"{path} can't be read as safetensors: {error}. Weights that torch.save wrote may run code when they are "
            "read; write them with safetensors.torch.save_file(model.state_dict(), path)."
        ) from error
    except StorageError:
        raise
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error


def _differences(own: Mapping[str, torch.Tensor], given: Mapping[str, Any]) -> list[str]:
    """Return how the names and shapes of weights differ from those of a learner, in words."""
    faults = []
    missing, unknown = [name for name in own if name not in given], [name for name in given if name not in own]
    if missing:
        listing = _listed([f"{name!r}{_near(name, unknown)}" for name in missing])
        faults.append(f"{len(missing)} of the learner's {len(own)} tensors are missing in the file: {listing}")
    if unknown:
        listing = _listed([f"{name!r}{_near(name, missing)}" for name in unknown])
        faults.append(f"{len(unknown)} of the file's {len(given)} tensors are not the learner's: {listing}")
    shapes = [
        f"{name!r} is {tuple(value.shape)} in the file and {tuple(own[name].shape)} in the learner"
        for name, value in given.items()
        if name in own and getattr(value, "shape", None) != own[name].shape
    ]
    return faults + ([_listed(shapes)] if shapes else [])


def _near(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
    return f" (the nearest is {near[0]!r})" if near else ""


def _listed(texts: list[str]) -> str:
    more = len(texts) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more} more" if more > 0 else "")
