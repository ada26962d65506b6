"""What the files of a run directory are called, so that what was left unfinished is known by its name."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping

_NAME = r"\d{6,}-(training|labeling)-\d{6,}(_\d{6,})?"
_CHECKPOINT = re.compile(rf"(?P<name>{_NAME})(-([2-9]|[1-9]\d+))?\.safetensors")
_ASIDE = re.compile(rf"\.({_NAME}|initial)\.[0-9a-f]{{8}}\.part|\.tmp\w{{6}}")  # the latter as safetensors writes
UNFINISHED = ".alcore-part"
"""How the name of a text file ends that is being written."""
_UNFINISHED = re.compile(rf"\..+\.(json|toml)\.\w{{8}}{re.escape(UNFINISHED)}")
_HIDDEN = re.compile(r"\.alcore-building\.[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.[0-9a-f]{8}")
ROOT_LOCK = ".alcore.lock"
"""The file in the folder of runs that is locked by all who build a run in it."""
_PARTS = re.compile(r"ckpt|inbox|lock|experiment\.toml|run\.db(-\w+)?|[^.].*\.json|" + _UNFINISHED.pattern)


def checkpoint_name(step: int, phase: str, epoch: int = 0, batches: int | None = None) -> str:
    """Return the name of a checkpoint; after so many batches of an epoch, if that is given."""
    return f"{step:06d}-{phase}-{epoch:06d}" + ("" if batches is None else f"_{batches:06d}")


def checkpoint_file(name: str, sha256: str, named: Mapping[str, str]) -> str:
    """Return the file of a checkpoint: one that isn't named with another content, so the name may get a number.

    Parameters
    ----------
    name
        As `checkpoint_name` gives it.
    sha256
        The digest of what is to be in the file.
    named
        The digests of the files that the database names.
    """
    files = (f"{name}{number and f'-{number}'}.safetensors" for number in itertools.chain([""], itertools.count(2)))
    return next(file for file in files if named.get(file, sha256) == sha256)


def is_of_checkpoint(file: str, name: str) -> bool:
    """Tell whether a file is of the checkpoint of this name, with or without a number."""
    found = _CHECKPOINT.fullmatch(file)
    return found is not None and found["name"] == name


def aside_name(name: str) -> str:
    """Return what a checkpoint file is called while it is written; one who takes the run over writes another."""
    return f".{name}.{secrets.token_hex(4)}.part"


def may_be_litter(file: str) -> bool:
    """Tell whether a file in the ``ckpt`` folder is called as alcore calls what it writes there after the start."""
    return bool(_CHECKPOINT.fullmatch(file) or _ASIDE.fullmatch(file))


def is_unfinished(file: str) -> bool:
    """Tell whether a file of a run directory is called as a text file is that is being written."""
    return bool(_UNFINISHED.fullmatch(file))


def hidden_name(run_id: str) -> str:
    """Return what a run directory is called while it is built."""
    return f".alcore-building.{run_id}.{secrets.token_hex(4)}"


def is_hidden(folder: str) -> bool:
    """Tell whether a folder is called as a run directory is that is being built."""
    return bool(_HIDDEN.fullmatch(folder))


def is_part_of_run(file: str) -> bool:
    """Tell whether something in a folder is called as what is in a run directory that is being built."""
    return bool(_PARTS.fullmatch(file))
