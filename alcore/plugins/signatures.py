"""Parameters of factories: read from signatures, checked against type hints, described from docstrings."""

from __future__ import annotations

import datetime
import functools
import inspect
import json
import re
import types
import typing
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Required

import pydantic
from typing_extensions import TypedDict

from alcore.codec import dtype_of, parse_toml
from alcore.errors import EncodingError, did_you_mean

_INJECTED = ("info",)  # given by the experiment, never by the user


class Parameter(NamedTuple):
    """One parameter of a factory."""

    name: str
    hint: Any
    default: Any
    required: bool
    doc: str


class RawValue(str):
    """The text after ``--set NAME=``, which is TOML, or else plain text where a parameter takes text."""

    def parsed(self) -> Any:
        """Return the TOML value; the text itself where it is not TOML, or a date."""
        try:
            value = parse_toml(f"value = {self}")["value"]
        except (ValueError, KeyError):
            return str(self)
        return str(self) if isinstance(value, datetime.date | datetime.time) else value


class ParameterTable:
    """Parameters by name, with all that is read from a factory of them, and the check of values against type hints.

    Parameters
    ----------
    parameters
        The parameters that may be given.
    open_ended
        Whether any other name is accepted too.
    renamed
        Earlier names of parameters with the names that they have now; None where a parameter is gone.
    code
        The parameters that name code or a program.
    takes_info
        Whether there is a parameter ``info`` too, which the experiment gives, never the user.

    Attributes
    ----------
    defaults : dict
        The default of each parameter that has one.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        open_ended: bool = False,
        renamed: Mapping[str, str | None] | None = None,
        code: Collection[str] = (),
        takes_info: bool = False,
    ) -> None:
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self.open_ended, self.renamed, self.code, self.takes_info = open_ended, dict(renamed or {}), code, takes_info
        self.defaults = {parameter.name: parameter.default for parameter in parameters if not parameter.required}

    def code_in(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that name code or a program, and are not a default."""
        now = {name: self.renamed.get(name) or name for name in values}
        return {
            name: value
            for name, value in values.items()
            if now[name] in self.code and value and value != self.defaults.get(now[name])
        }

    def validate(
        self, values: Mapping[str, Any], where: str, *, partial: bool = False
    ) -> tuple[dict[str, Any], list[str]]:
        """Check values; see `validate`."""
        values, both = self._with_new_names(values, where)
        if both:
            return {}, both
        plain = {name: value.parsed() if isinstance(value, RawValue) else value for name, value in values.items()}
        if broken := [name for name, value in plain.items() if isinstance(value, str) and not _is_unicode(value)]:
            return {}, [f"{where}.{name} is {plain[name]!r}, which is not valid Unicode text" for name in broken]
        result, errors = self._check(plain, partial)
        for name in {str(error["loc"][0]) for error in errors}:
            raw = values.get(name)
            if isinstance(raw, RawValue) and plain[name] != str(raw):
                trial = {**plain, name: str(raw)}
                checked, remaining = self._check(trial, partial)
                if not any(error["loc"][0] == name for error in remaining):
                    plain, result, errors = trial, checked, remaining
        return result, [self._fault(error, plain, where) for error in _one_each(errors)]

    def _with_new_names(self, values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
        """Return values under the names that parameters have now, and a fault for each that has two values."""
        result, faults = dict(values), []
        for old, new in self.renamed.items():
            if old not in result or old in self.parameters:
                continue
            value = result.pop(old)
            if new is None:
                warnings.warn(f"{where} has no parameter {old!r} any more; its value is left out.", stacklevel=2)
            elif new in values:
                faults.append(f"{where}.{old} is an earlier name of {where}.{new}, and both are given; leave one out")
            else:
                warnings.warn(f"{where}.{old} is called {where}.{new} now.", stacklevel=2)
                result[new] = value
        return result, faults

    def _check(self, values: Mapping[str, Any], partial: bool) -> tuple[dict[str, Any], list[Any]]:
        adapter = self._partial_adapter if partial else self._adapter
        try:
            return adapter.validate_json(json.dumps(values, default=str), strict=True), []
        except pydantic.ValidationError as error:
            return {}, list(error.errors(include_url=False))

    @functools.cached_property
    def _adapter(self) -> pydantic.TypeAdapter[dict[str, Any]]:
        return self._make_adapter(partial=False)

    @functools.cached_property
    def _partial_adapter(self) -> pydantic.TypeAdapter[dict[str, Any]]:
        return self._make_adapter(partial=True)

    def _make_adapter(self, *, partial: bool) -> pydantic.TypeAdapter[dict[str, Any]]:
        fields = {
            parameter.name: (Required if parameter.required and not partial else NotRequired)[
                _checkable(parameter.hint)
            ]
            for parameter in self.parameters.values()
        }
        make: Any = TypedDict
        table = make("Parameters", fields)
        table.__pydantic_config__ = pydantic.ConfigDict(
            extra="allow" if self.open_ended else "forbid", arbitrary_types_allowed=True
        )
        adapter: pydantic.TypeAdapter[dict[str, Any]] = pydantic.TypeAdapter(table)
        return adapter

    def _fault(self, error: Any, values: Mapping[str, Any], where: str) -> str:
        name = str(error["loc"][0])
        own = len(error["loc"]) == 1  # else it is about a part of the value
        hint = self.parameters[name].hint if name in self.parameters else Any
        if own and error["type"] == "missing":
            return f"{where}.{name} is missing; give it with --set {where}.{name}=VALUE ({type_name(hint)})"
        if own and error["type"] == "extra_forbidden":
            return f"{where} has no parameter {name!r}: {did_you_mean(name, self.parameters)}"
        reason = f": {error['msg'].removeprefix('Value error, ')}" if error["type"] == "value_error" else ""
        if error["type"] == "string_type" and isinstance(error["input"], int | float):
            reason += f': text is written in quotes, as "{error["input"]}"'
        if typing.get_origin(hint) in (list, tuple) and own:
            reason += f""", for instance --set {where}.{name}='["a", "b"]'"""
        return f"{where}.{name} is {values.get(name)!r}; it must be {type_name(hint)}{reason}"


def parameters_of(factory: Callable[..., Any]) -> tuple[list[Parameter], bool]:
    """Return the parameters that a user may set, and whether any other name is accepted too."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return [], True
    hints, docs = _hints(factory), _docs(factory)
    parameters = [
        Parameter(
            parameter.name,
            hints.get(parameter.name, Any),
            None if parameter.default is parameter.empty else parameter.default,
            parameter.default is parameter.empty,
            docs.get(parameter.name, ""),
        )
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in _INJECTED
    ]
    return parameters, any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def accepts(factory: Callable[..., Any], name: str) -> bool:
    """Return whether a factory has a parameter of this name."""
    try:
        return name in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def validate(
    factory: Callable[..., Any], values: Mapping[str, Any], where: str, *, partial: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Check values against the signature of a factory.

    Parameters
    ----------
    factory
        The class or function that gets the values.
    values
        Plain TOML data, or `RawValue` text, by parameter name.
    where
        Start of each message, for instance ``query.uq``.
    partial
        Whether other values are given elsewhere, so that none is missing here.

    Returns
    -------
    tuple
        The values as the factory takes them, and a list of faults. The values are valid only without faults.
    """
    return table_of(factory).validate(values, where, partial=partial)


def table_of(factory: Callable[..., Any]) -> ParameterTable:
    """Return the parameters of a factory; of one factory, they are read once."""
    try:
        return _cached_table(factory)
    except TypeError:  # a factory that is not hashable
        return _new_table(factory)


def _new_table(factory: Callable[..., Any]) -> ParameterTable:
    parameters, open_ended = parameters_of(factory)
    renamed, code = getattr(factory, "renamed_parameters", None), getattr(factory, "code_parameters", ())
    return ParameterTable(
        parameters,
        open_ended=open_ended,
        renamed=renamed if isinstance(renamed, Mapping) else None,  # else a member of that name which is something else
        code=code if isinstance(code, frozenset | set | tuple | list) else (),
        takes_info=accepts(factory, "info"),
    )


_cached_table = functools.lru_cache(maxsize=256)(_new_table)


def describe_factory(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return summary, documentation and parameters of a factory as JSON-like data."""
    parameters, open_ended = parameters_of(factory)
    doc = inspect.getdoc(factory) or ""
    return {
        "summary": doc.split("\n\n")[0].replace("\n", " "),
        "doc": doc,
        "parameters": describe_parameters(parameters),
        "other_parameters": open_ended,
    }


def describe_parameters(parameters: Iterable[Parameter]) -> list[dict[str, Any]]:
    """Return name, type, default and documentation of parameters as JSON-like data."""
    return [
        {
            "name": parameter.name,
            "type": type_name(parameter.hint),
            "required": parameter.required,
            "default": None if parameter.required else _default_text(parameter.default),
            "doc": parameter.doc,
        }
        for parameter in parameters
    ]


def type_name(hint: Any) -> str:
    """Return a type hint as it is written in Python, with ``any`` and ``torch.dtype`` spelled out."""
    if hint is Any:
        return "any"
    if hint is type(None):
        return "None"
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " | ".join(type_name(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(repr(value) for value in typing.get_args(hint))
    if typing.get_origin(hint) is not None:
        inner = ", ".join(type_name(argument) if argument is not ... else "..." for argument in typing.get_args(hint))
        return f"{getattr(typing.get_origin(hint), '__name__', hint)}[{inner}]"
    module = getattr(hint, "__module__", "")
    name = getattr(hint, "__qualname__", str(hint))
    return f"torch.{name}" if module == "torch" else name


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the hints that can be resolved; a parameter whose hint can't be counts as Any."""
    target: Any = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except Exception:  # noqa: BLE001 - one unresolvable name fails them all, so they are tried one by one
        hints = {}
        for name, annotation in getattr(target, "__annotations__", {}).items():
            lone = types.FunctionType((lambda: None).__code__, getattr(target, "__globals__", {}))
            lone.__annotations__ = {name: annotation}
            try:
                hints[name] = typing.get_type_hints(lone)[name]
            except Exception:  # noqa: BLE001 - this one counts as Any
                continue
        return hints


def _docs(factory: Callable[..., Any]) -> dict[str, str]:
    """Return the texts of the numpydoc section ``Parameters``, by name."""
    doc = inspect.getdoc(factory) or ""
    match = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in (match.group(1) if match else "").splitlines():
        if line and not line[0].isspace():
            names = [word.strip().lstrip("*") for word in line.split(":")[0].split(",")]
        else:
            for name in names:
                docs[name] = f"{docs.get(name, '')} {line.strip()}".strip()
    return docs


def _checkable(hint: Any) -> Any:
    """Return a hint that pydantic can check text against."""
    if getattr(hint, "__module__", "") == "torch" and getattr(hint, "__name__", "") in ("device", "dtype"):
        return typing.Annotated[
            Any, pydantic.BeforeValidator(_torch_device if hint.__name__ == "device" else torch_dtype)
        ]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.Union[tuple(_checkable(member) for member in typing.get_args(hint))]  # noqa: UP007 - made at run time
    if getattr(hint, "_is_protocol", False):  # recognized by its methods, which no text has
        return Any
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
    try:
        return dtype_of(str(text).removeprefix("torch."))
    except EncodingError:
        raise ValueError(f"{text!r} is not a torch dtype; for instance float32, float64, bfloat16") from None


def _torch_device(text: Any) -> Any:
    import torch

    try:
        return torch.device(text)
    except (RuntimeError, TypeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_each(errors: list[Any]) -> list[Any]:
    """Return the first error of each parameter, since a union has one for each of its members."""
    return list({error["loc"][0]: error for error in reversed(errors)}.values())[::-1]


def _default_text(default: Any) -> Any:
    if default is None or isinstance(default, bool | int | float | str):
        return default
    if isinstance(default, list | tuple):
        return list(default)
    return str(default) if not isinstance(default, Path) else default.as_posix()
