"""Faults of columns: gathered, and told of in one message with the flags that mend them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alcore.errors import UsageError
from alcore_tabular.messages import setting


class ColumnError(UsageError):
    """A column that can't be used as it is.

    Parameters
    ----------
    message
        What is wrong, where, and every remedy.
    mend
        The parameters of one remedy; lists are what is added to the user's. Empty if only the file can be mended.
    """

    def __init__(self, message: str, mend: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.mend = dict(mend)


class Faults:
    """Faults that are found one after the other, and raised together.

    Parameters
    ----------
    file
        Name of the file.
    given
        The lists that the user gave, by parameter; flags keep what is in them.
    """

    def __init__(self, file: str, given: Mapping[str, Sequence[str]]) -> None:
        self._file, self._given = file, given
        self.found: list[ColumnError] = []

    def gather(self) -> _Gathering:
        """Return a context in which a fault that is raised is kept, and after which the program goes on."""
        return _Gathering(self.found)

    def check(self) -> None:
        """Raise what was found: a single fault as it is, several as a list with the flags that mend them together."""
        if not self.found:
            return
        if len(self.found) == 1:
            raise self.found[0]
        lines = [str(fault).removeprefix(f"{self._file}: ") for fault in self.found]
        text = "\n".join(f"- {line}" for line in lines)
        flags = " ".join(setting(name, value) for name, value in self._mend().items())
        unmended = sum(not fault.mend for fault in self.found)
        rest = f"; {unmended} of the {len(self.found)} must be mended in the file" if unmended else ""
        end = f"\n- One way to mend all that flags can mend{rest}: {flags}" if flags else ""
        raise UsageError(f"{self._file}: {len(self.found)} things are wrong:\n{text}{end}")

    def _mend(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for fault in self.found:
            for name, value in fault.mend.items():
                if isinstance(value, str | int | float):
                    merged.setdefault(name, value)
                else:
                    merged[name] = [*dict.fromkeys([*merged.get(name, self._given.get(name, ())), *value])]
        return merged


class _Gathering:
    """Keeps a `ColumnError` that is raised inside."""

    def __init__(self, faults: list[ColumnError]) -> None:
        self._faults = faults

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, ColumnError):
            self._faults.append(error)
        return isinstance(error, ColumnError)
