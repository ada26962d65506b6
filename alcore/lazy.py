"""Names of a package that are imported when they are first used, so that importing the package itself takes no time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return ``__getattr__`` for a package, which imports the module of a name when that is first used.

    For type checkers and editors the package also imports the names under ``if TYPE_CHECKING:``, and lists them in
    ``__all__``. They are not in ``dir(package)`` before: what looks through the members of a plugin, as pluggy does,
    would import them all.

    Parameters
    ----------
    package
        Its ``__name__``.
    homes
        The names of each module of the package. A module without names is a name itself.

    Examples
    --------
    >>> __getattr__ = lazy_names(__name__, {"query": ["MyQuery"], "learner": ["MyLearner", "my_learner"]})
    """
    home_of = {name: module for module, names in homes.items() for name in names or [module]}

    def __getattr__(name: str) -> Any:  # noqa: N807 - of the package, by PEP 562
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{home_of[name]}")
        value = getattr(module, name) if homes[home_of[name]] else module
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
