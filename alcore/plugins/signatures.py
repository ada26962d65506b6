"""Parameters of factories: read from signatures, checked against type hints, described from docstrings."""

from __future__ import annotations

import datetime
import inspect
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Required

import pydantic
from typing_extensions import TypedDict

from alcore.errors import did_you_mean

INJECTED = ("info",)  # given by the experiment, never by the user


class Parameter(NamedTuple):
    """One parameter of a factory."""

    name: str
    hint: Any
    default: Any
    required: bool
    doc: str


class Given(str):
    """A value as it was typed after ``--set``: read as TOML, else as raw text where that is a valid value."""

    def parsed(self) -> Any:
        """Return the TOML value, or the text itself if it is none."""
        try:
            value = tomllib.loads(f"value = {self}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            return str(self)
        return str(self) if isinstance(value, datetime.date | datetime.time) else value


def parameters(factory: Callable[..., Any]) -> tuple[list[Parameter], bool]:
    """Return the parameters that a user may set, and whether any other name is taken too."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return [], True
    hints, docs = _hints(factory), _docs(factory)
    found = [
        Parameter(
            one.name,
            hints.get(one.name, Any),
            None if one.default is one.empty else one.default,
            one.default is one.empty,
            docs.get(one.name, ""),
        )
        for one in signature.parameters.values()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name not in INJECTED
    ]
    return found, any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())


def takes(factory: Callable[..., Any], name: str) -> bool:
    """Tell whether a factory has a parameter of this name."""
    try:
        return name in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def validate(
    factory: Callable[..., Any], values: Mapping[str, Any], where: str, *, leave_out: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Check values against the signature of a factory.

    Parameters
    ----------
    factory
        What they are for.
    values
        Plain TOML data, or `Given` text, by parameter name.
    where
        Start of each message, for instance ``query.uq``.
    leave_out
        Parameters that are given otherwise.

    Returns
    -------
    tuple
        The values as the factory wants them, and a list of faults; the values count only without faults.
    """
    known, open_ended = parameters(factory)
    known = [one for one in known if one.name not in leave_out]
    adapter = _adapter(known, open_ended)
    plain = {name: value.parsed() if isinstance(value, Given) else value for name, value in values.items()}
    if broken := [name for name, value in plain.items() if isinstance(value, str) and not _is_text(value)]:
        return {}, [f"{where}.{name} is {plain[name]!r}, which holds bytes that are no text" for name in broken]
    result, errors = _check(adapter, plain)
    for name in {str(error["loc"][0]) for error in errors}:
        given = values.get(name)
        if isinstance(given, Given) and plain[name] != str(given):
            trial = {**plain, name: str(given)}
            checked, remaining = _check(adapter, trial)
            if not any(error["loc"][0] == name for error in remaining):
                plain, result, errors = trial, checked, remaining
    by_name = {one.name: one for one in known}
    return result, [_fault(error, plain, by_name, where) for error in _one_each(errors)]


def describe(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return summary, documentation and parameters of a factory as JSON-like data."""
    known, open_ended = parameters(factory)
    doc = inspect.getdoc(factory) or ""
    return {
        "summary": doc.split("\n\n")[0].replace("\n", " "),
        "doc": doc,
        "parameters": [
            {
                "name": one.name,
                "type": type_name(one.hint),
                "required": one.required,
                "default": None if one.required else _default_text(one.default),
                "doc": one.doc,
            }
            for one in known
        ],
        "other_parameters": open_ended,
    }


def type_name(hint: Any) -> str:
    """Return a type hint as a person would write it."""
    if hint is Any:
        return "any"
    if hint is type(None):
        return "None"
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " | ".join(type_name(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(repr(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is not None:
        inner = ", ".join(type_name(one) if one is not ... else "..." for one in typing.get_args(hint))
        return f"{getattr(typing.get_origin(hint), '__name__', hint)}[{inner}]"
    module = getattr(hint, "__module__", "")
    name = getattr(hint, "__qualname__", str(hint))
    return f"torch.{name}" if module == "torch" else name


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return what hints can be resolved; one that can't is left out and counts as Any."""
    target: Any = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except Exception:  # noqa: BLE001 - one unresolvable name fails them all, so they are tried one by one
        found = {}
        for name, annotation in getattr(target, "__annotations__", {}).items():
            lone = types.FunctionType((lambda: None).__code__, getattr(target, "__globals__", {}))
            lone.__annotations__ = {name: annotation}
            try:
                found[name] = typing.get_type_hints(lone)[name]
            except Exception:  # noqa: BLE001 - this one counts as Any
                continue
        return found


def _docs(factory: Callable[..., Any]) -> dict[str, str]:
    """Return the texts of the numpydoc section ``Parameters``, by name."""
    doc = inspect.getdoc(factory) or ""
    match = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (match.group(1) if match else "").splitlines():
        if line and not line[0].isspace():
            names = [word.strip().lstrip("*") for word in line.split(":")[0].split(",")]
        else:
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _adapter(known: list[Parameter], open_ended: bool) -> pydantic.TypeAdapter[dict[str, Any]]:
    fields = {one.name: (Required if one.required else NotRequired)[_checkable(one.hint)] for one in known}
    make: Any = TypedDict
    table = make("Parameters", fields)
    table.__pydantic_config__ = pydantic.ConfigDict(
        extra="allow" if open_ended else "forbid", arbitrary_types_allowed=True
    )
    adapter: pydantic.TypeAdapter[dict[str, Any]] = pydantic.TypeAdapter(table)
    return adapter


def _checkable(hint: Any) -> Any:
    """Return a hint that pydantic can check text against."""
    if getattr(hint, "__module__", "") == "torch" and getattr(hint, "__name__", "") in ("device", "dtype"):
        return typing.Annotated[
            Any, pydantic.BeforeValidator(_torch_device if hint.__name__ == "device" else torch_dtype)
        ]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.Union[tuple(_checkable(one) for one in typing.get_args(hint))]  # noqa: UP007 - made at run time
    try:
        pydantic.TypeAdapter(hint, config=None)
    except Exception:  # noqa: BLE001 - a hint that pydantic can't take
        return hint if isinstance(hint, type) else Any
    return hint


def torch_dtype(text: Any) -> Any:
    """Return the torch dtype of a name such as ``float32``; raise ValueError for anything else."""
    import torch

    if isinstance(text, torch.dtype):
        return text
    found = getattr(torch, str(text).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{text!r} is no torch dtype; for instance float32, float64, bfloat16")
    return found


def _torch_device(text: Any) -> Any:
    import torch

    try:
        return torch.device(text)
    except (RuntimeError, TypeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _check(
    adapter: pydantic.TypeAdapter[dict[str, Any]], values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    try:
        return adapter.validate_json(json.dumps(values, default=str), strict=True), []
    except pydantic.ValidationError as error:
        return {}, list(error.errors(include_url=False))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_each(errors: list[Any]) -> list[Any]:
    """Return one error a parameter: a union reports each of its members."""
    return list({error["loc"][0]: error for error in reversed(errors)}.values())[::-1]


def _fault(error: Any, values: Mapping[str, Any], known: Mapping[str, Parameter], where: str) -> str:
    name = str(error["loc"][0])
    own = len(error["loc"]) == 1  # else it is about a part of the value
    if own and error["type"] == "missing":
        return f"{where}.{name} is missing; give it with --set {where}.{name}=VALUE ({type_name(known[name].hint)})"
    if own and error["type"] == "extra_forbidden":
        return f"{where} has no parameter {name!r}: {did_you_mean(name, known)}"
    hint = type_name(known[name].hint) if name in known else "any"
    reason = f": {error['msg']}" if error["type"] == "value_error" else ""
    if typing.get_origin(known[name].hint if name in known else Any) in (list, tuple) and own:
        reason += f""", for instance --set {where}.{name}='["a", "b"]'"""
    return f"{where}.{name} is {values.get(name)!r}; it must be {hint}{reason}"


def _default_text(default: Any) -> Any:
    if default is None or isinstance(default, bool | int | float | str):
        return default
    if isinstance(default, list | tuple):
        return list(default)
    return str(default) if not isinstance(default, Path) else default.as_posix()
