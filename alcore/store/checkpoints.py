"""Checkpoints: one immutable safetensors file each, which has its name before the database tells of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alcore.codec import decode, encode
from alcore.errors import UsageError
from alcore.store.filenames import aside_name, checkpoint_file
from alcore.store.files import cant_write, fsync_path

_KEY = "alcore"  # one key: several would come out in another order from process to process


class Published(NamedTuple):
    """A checkpoint file that is on the disk for good."""

    file: str
    sha256: str
    bytes: int


class Aside(NamedTuple):
    """A checkpoint that is on the disk, under a name that nobody looks for."""

    path: Path
    name: str
    sha256: str
    bytes: int

    def publish(self, named: Mapping[str, str] | None = None) -> Published:
        """Rename the file to the name that it is to have, and flush the folder.

        Parameters
        ----------
        named
            The digests of the checkpoints that the database names. A file with another content is never replaced,
            since the rename may be the last thing that this process does: the name gets a number then.
        """
        file = checkpoint_file(self.name, self.sha256, named or {})
        try:
            self.path.rename(self.path.with_name(file))
            fsync_path(self.path.parent)
        except OSError as error:
            raise cant_write(self.path.with_name(file), error) from error
        return Published(file, self.sha256, self.bytes)


@contextlib.contextmanager
def written_aside(folder: Path, name: str, state: Mapping[str, Any]) -> Iterator[Aside]:
    """Write a checkpoint and flush it; the block may publish it, and if the block fails it is gone.

    Parameters
    ----------
    folder
        The ``ckpt`` folder of the run.
    name
        File name without its ending.
    state
        Values that `alcore.codec.encode` takes. The first keys become the first part of tensor names:
        ``model.*``, ``optimizer.*``, ``rng.*``.
    """
    tensors: dict[str, torch.Tensor] = {}
    described = encode(dict(state), tensors=tensors)
    unique, aliases = _store_once(tensors)
    header = {_KEY: json.dumps({"state": described, "aliases": aliases}, separators=(",", ":"))}
    aside = folder / aside_name(name)
    try:
        try:
            save_file(unique, aside, metadata=header)
            aside.chmod(0o644)
            with aside.open("rb") as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = aside.stat().st_size
        except (OSError, SafetensorError) as error:
            raise cant_write(folder / f"{name}.safetensors", error) from error
        yield Aside(aside, name, digest, size)
    except BaseException:
        with contextlib.suppress(OSError):  # litter hurts nobody, and what went wrong is told
            aside.unlink(missing_ok=True)
        raise


def publish(folder: Path, name: str, state: Mapping[str, Any]) -> Published:
    """Write a checkpoint where nobody else writes, and nothing is named yet; parameters as for `written_aside`."""
    with written_aside(folder, name, state) as aside:
        return aside.publish()


def load(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Return the state that was published, with its tensors on the CPU.

    Parameters
    ----------
    path
        The checkpoint file.
    sha256
        What the database says its digest is.

    Raises
    ------
    UsageError
        When the file is missing, damaged, or not a checkpoint.
    """
    try:
        with path.open("rb") as file:
            intact = sha256 is None or hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if intact:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                header = json.loads((file.metadata() or {})[_KEY])
            tensors |= {alias: tensors[name] for alias, name in header["aliases"].items()}
            return dict(decode(header["state"], tensors))
    except KeyError as error:
        raise UsageError(f"{path} is no checkpoint of alcore: it has no {error}.") from error
    except (OSError, RuntimeError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"checkpoint {path} can't be read: {error}.") from error
    raise UsageError(f"checkpoint {path} is damaged: its SHA-256 is not the one recorded for it.")


def _store_once(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Split tensors into those to write, each once and contiguous, and the aliases of tied ones."""
    unique: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        key = (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        shares = tensor.numel() > 0 and storage in storages
        storages.add(storage)
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        unique[name] = tensor if tensor.is_contiguous() and whole and not shares else tensor.clone().contiguous()
    return unique, aliases
