"""Plugins: what is installed, the parameters of their factories, and the listeners of a run.

Importing this package imports no torch. The names of `alcore.plugins.signatures`, which needs pydantic, are loaded when
they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alcore.lazy import lazy_names
from alcore.plugins.discovery import installed_versions
from alcore.plugins.registry import Clash, Offer, Plugin, Registry, import_code, installed, load_factory

if TYPE_CHECKING:
    from alcore.plugins.signatures import (
        Parameter,
        RawValue,
        accepts,
        describe_factory,
        parameters_of,
        validate,
    )

__all__ = [
    "Clash",
    "Offer",
    "Parameter",
    "Plugin",
    "RawValue",
    "Registry",
    "accepts",
    "describe_factory",
    "import_code",
    "installed",
    "installed_versions",
    "load_factory",
    "parameters_of",
    "validate",
]
__getattr__ = lazy_names(
    __name__,
    {"signatures": ["Parameter", "RawValue", "accepts", "describe_factory", "parameters_of", "type_name", "validate"]},
)
