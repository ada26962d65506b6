"""Parts of messages: a remedy as a setting, the nearest name, a cell, a shortened list."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import warnings
from collections.abc import Iterable, Sequence

from alcore.errors import did_you_mean

_LISTED = 20  # names in one message
_CELL = 40  # characters of a cell in one message


class TableWarning(UserWarning):
    """Something in a table was changed or left out, or may be a mistake; the run continues."""


def warn(message: str) -> None:
    """Warn, once for each message and place."""
    warnings.warn(message, TableWarning, stacklevel=3)


def setting(name: str, value: str | float | Sequence[str]) -> str:
    """Return the option that gives a parameter a value, quoted for a POSIX shell.

    Returns
    -------
    str
        For instance ``--set 'data.csv.drop=["id", "name"]'``.
    """
    if isinstance(value, str):
        bare = re.fullmatch(r"[A-Za-z][\w-]*", value, re.ASCII) and value not in {
            "true",
            "false",
            "inf",
            "nan",
        }
        text = value if bare else json.dumps(value, ensure_ascii=False)
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int | float):
        text = str(value)
    else:
        text = json.dumps(list(value), ensure_ascii=False)
    return f"--set {shlex.quote(f'data.csv.{name}={text}')}"


def nearest(word: str, names: Iterable[str]) -> str:
    """Return text with the nearest name to a mistyped one, whatever its case, or up to twenty names."""
    candidates = sorted(set(names))
    word = next((name for name in candidates if name.casefold() == word.casefold()), word)
    if len(candidates) <= _LISTED:
        return did_you_mean(word, candidates)
    shortlist = difflib.get_close_matches(word, candidates, n=_LISTED, cutoff=0.0)
    return f"{did_you_mean(word, shortlist)} and {len(candidates) - len(shortlist)} more"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in quotes, shortened if there are many."""
    text = ", ".join(repr(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def capital(text: str) -> str:
    """Return text with a capital first letter, otherwise unchanged."""
    return text[:1].upper() + text[1:]


def shown(cell: str) -> str:
    """Return a cell in quotes, shortened if it is long."""
    return repr(cell if len(cell) <= _CELL else cell[: _CELL - 1] + "…")
