"""How warnings and refusals are worded: a remedy as a setting, the nearest name, a cell, a list cut short."""

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
    """Something in a table was changed or left out, or looks wrong, and the run goes on."""


def warn(message: str) -> None:
    """Say what was changed, once for each text and place."""
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
    elif isinstance(value, int | float):
        text = str(value)
    else:
        text = json.dumps(list(value), ensure_ascii=False)
    return f"--set {shlex.quote(f'data.csv.{name}={text}')}"


def nearest(word: str, names: Iterable[str]) -> str:
    """Say which of the names is nearest to a mistyped one, whatever its case; lists twenty at most."""
    known = sorted(set(names))
    word = next((name for name in known if name.casefold() == word.casefold()), word)
    if len(known) <= _LISTED:
        return did_you_mean(word, known)
    shortlist = difflib.get_close_matches(word, known, n=_LISTED, cutoff=0.0)
    return f"{did_you_mean(word, shortlist)} and {len(known) - len(shortlist)} more"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in quotes, cut short where there are many."""
    text = ", ".join(repr(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def capital(text: str) -> str:
    """Return text that begins with a capital letter and is otherwise as it was."""
    return text[:1].upper() + text[1:]


def shown(cell: str) -> str:
    """Return a cell in quotes, cut short where it is long."""
    return repr(cell if len(cell) <= _CELL else cell[: _CELL - 1] + "…")
