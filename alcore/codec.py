"""JSON that comes back as it was: tuples, integer keys, non-finite floats, tensors and arrays.

What JSON has no form for is written as an object with one key that starts with ``$``. A type that is not
listed here is refused, since it would come back as something else.

Dataclasses and named tuples of a user are written by field, with the name of their class. Nothing is imported by that
name, and no code of the class is run: the class is one of those that this process has met, in a value that it wrote or
beside the parts of its run (`learn_types`). A value of a class that it has not met comes back as a `StoredObject`.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import functools
import inspect
import json
import math
import re
import sys
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from alcore.errors import EncodingError

if TYPE_CHECKING:
    import torch

_to_line = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Kept, since `json.dumps` makes an encoder at each call, which takes longer than a small value."""

_DEEPEST = 100
"""How many levels of lists and tables a value may have: a number, since Python's recursion limit is the process's."""
_STRINGS_AND_BRACKETS = re.compile(r""""(?:[^"\\]|\\.)*"|'[^'\n]*'|[\[\]{}]""", re.DOTALL)

# torch and numpy are imported where a value needs them, so that runs can be listed without either
Tensors = dict[str, "torch.Tensor"]


_OTHERS = frozenset({"alcore", "numpy", "torch", *sys.stdlib_module_names}) - {"__main__"}
"""Packages whose dataclasses and named tuples are not those of a user."""
_classes: dict[str, type] = {}
"""The classes that this process has met, by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredObject:
    """A stored value of a class that this process has not met.

    Parameters
    ----------
    tag
        ``"$dataclass"`` or ``"$namedtuple"``.
    name
        Of the class, as ``"module:qualified.name"``.
    fields
        Its values, by field.
    """

    tag: str
    name: str
    fields: Mapping[str, Any]


def storable(text: str) -> str:
    """Return text as a file or a database can hold it: half of a character, which JSON may have, as an escape."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def parse_json(text: str | bytes, *, deepest: int = _DEEPEST) -> Any:
    """Return what JSON that comes from elsewhere says.

    Raises
    ------
    ValueError
        If it is not JSON, or nested more than `deepest` levels deep.
    """
    decoded = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
    _check_nesting(decoded, deepest)
    return json.loads(decoded)


def parse_toml(text: str) -> dict[str, Any]:
    """Return what TOML that comes from elsewhere says.

    Raises
    ------
    ValueError
        If it is not TOML, or nested more than 100 levels deep.
    """
    _check_nesting(text, _DEEPEST)
    return tomllib.loads(text)


def _check_nesting(text: str, deepest: int) -> None:
    if text.count("[") + text.count("{") <= deepest:
        return
    depth = 0
    for part in _STRINGS_AND_BRACKETS.finditer(text):
        mark = part[0]
        depth += (mark in "[{") - (mark in "]}")
        if depth > deepest:
            raise ValueError(f"it is nested more than {deepest} levels deep")


def encode(value: Any, *, tensors: Tensors | None = None, prefix: str = "", levels: int = _DEEPEST) -> Any:
    """Return `value` as plain JSON data.

    Parameters
    ----------
    value
        None, bool, int, float, str, bytes, list, tuple, set, dict, Counter, OrderedDict, tensor, array,
        NumPy scalar, torch dtype or device, or a user's dataclass or named tuple of these.
    tensors
        Where tensors and arrays are put, by name; written inline as base64 where it is None.
    prefix
        Start of these names.
    levels
        How many levels of lists and mappings the value may have.

    Raises
    ------
    EncodingError
        For any other type, and for more levels, naming the place.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if levels < 1 and (isinstance(value, list | tuple | set | frozenset | dict) or dataclasses.is_dataclass(value)):
        raise EncodingError(f"{prefix.lstrip('.')[:80]}: a value that is nested more than {_DEEPEST} levels deep.")
    if kind is list:
        return [
            encode(item, tensors=tensors, prefix=f"{prefix}.{i}", levels=levels - 1) for i, item in enumerate(value)
        ]
    if kind in (tuple, set, frozenset):
        items = value if kind is tuple else sorted(value, key=dumps)  # a repr may differ from process to process
        return {f"${kind.__name__}": encode(list(items), tensors=tensors, prefix=prefix, levels=levels)}
    if kind in (dict, collections.OrderedDict, collections.Counter, collections.defaultdict):
        return _encode_mapping(value, kind, tensors, prefix, levels - 1)
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    encoded = _encode_numeric(value, tensors, prefix)
    if encoded is not None:
        return encoded
    if (tag := _tag_of(kind)) or kind is StoredObject:
        tag, name, fields = _parts_of(value, tag, prefix)
        state = {
            key: encode(item, tensors=tensors, prefix=f"{prefix}.{key}", levels=levels - 1)
            for key, item in fields.items()
        }
        return {tag: {"class": name, "fields": state}}
    raise EncodingError(
        f"{prefix.lstrip('.') or 'the value'}: a {kind.__module__}.{kind.__qualname__} can't be stored so that it "
        "comes back as it was; use numbers, strings, tensors, arrays, and lists, tuples, dicts or dataclasses of these."
    )


def decode(data: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
    """Return the value that `encode` was given."""
    if isinstance(data, list):
        return [decode(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1 or not (tag := next(iter(data))).startswith("$"):
        return {key: decode(value, tensors) for key, value in data.items()}
    body = data[tag]
    match tag:
        case "$float":
            return float(body)
        case "$tuple":
            return tuple(decode(body, tensors))
        case "$set":
            return set(decode(body, tensors))
        case "$frozenset":
            return frozenset(decode(body, tensors))
        case "$dict":
            return dict(_pairs(body, tensors))
        case "$OrderedDict":
            return collections.OrderedDict(_pairs(body, tensors))
        case "$Counter":
            return collections.Counter(dict(_pairs(body, tensors)))
        case "$bytes":
            return base64.b64decode(body)
        case "$tensor" | "$array":
            return _decode_tensor(tag, body, tensors)
        case "$scalar":
            import numpy as np

            return np.frombuffer(base64.b64decode(body[1]), dtype=np.dtype(body[0]))[0]
        case "$dtype":
            return dtype_of(body)
        case "$device":
            import torch

            return torch.device(body)
        case "$dataclass" | "$namedtuple":
            if not isinstance(body, dict) or not isinstance(body.get("fields"), dict):
                raise EncodingError(f"stored data has the tag {tag!r} without a class and its fields.")
            fields = {name: decode(item, tensors) for name, item in body["fields"].items()}
            return _instance(tag, str(body.get("class")), fields)
    raise EncodingError(f"stored data has the tag {tag!r}, which this version of alcore doesn't know.")


def dumps(value: Any) -> str:
    """Return one line of JSON from which `loads` makes the same value."""
    return _to_line(encode(value))


def loads(text: str) -> Any:
    """Return the value of text that a run stored, such as that of `Run.label_text`: what `dumps` was given."""
    return decode(parse_json(text, deepest=4 * _DEEPEST))  # a mapping of integer keys has three levels


def export_json(value: Any) -> str:
    """Return JSON for other programs to read: tuples as lists, tensors as numbers, NaN and infinity as null."""
    return json.dumps(_plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def learn_types(parts: Iterable[Any]) -> None:
    """Let values of these classes come back: those in the modules in which parts of a run are defined.

    Parameters
    ----------
    parts
        Objects or functions; of an object, the modules of its class and its base classes count.
    """
    for part in parts:
        for owner in (part,) if inspect.isroutine(part) else type(part).__mro__:
            module = sys.modules.get(str(getattr(owner, "__module__", "")), types)
            for value in [*vars(module).values(), *(vars(owner).values() if inspect.isclass(owner) else ())]:
                if isinstance(value, type) and _tag_of(value):
                    _classes[_name_of(value)] = value


def learn_types_in(value: Any) -> None:
    """Let values come back that have the class of this one, or of one inside it."""
    for member in _within(value):
        if _tag_of(type(member)):
            _classes[_name_of(type(member))] = type(member)


def unknown_types(value: Any) -> list[str]:
    """Return the names of the classes in a value that this process has not met."""
    return sorted({member.name for member in _within(value) if type(member) is StoredObject})


def resolved(value: Any) -> Any:
    """Return a value in which each `StoredObject` is an object of its class, as far as that is known now."""
    return decode(encode(value)) if unknown_types(value) else value


def _within(value: Any) -> Iterator[Any]:
    """Yield a value and those that it holds."""
    yield value
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, tuple | list | set | frozenset):
        inner = value
    elif isinstance(value, StoredObject):
        inner = value.fields.values()
    elif _tag_of(type(value)):
        inner = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    for member in inner:
        yield from _within(member)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _tag_of(kind: type) -> str:
    """Return the tag of values of a class, or "" for one that is not a dataclass or named tuple of a user."""
    if str(kind.__module__).partition(".")[0] in _OTHERS or hasattr(kind, "__del__"):
        return ""
    if issubclass(kind, tuple):
        return "$namedtuple" if isinstance(getattr(kind, "_fields", None), tuple) else ""
    if not dataclasses.is_dataclass(kind):
        return ""
    try:
        object.__new__(kind)
    except TypeError:  # a dict or an exception, which is more than its fields
        return ""
    return "$dataclass"


def _parts_of(value: Any, tag: str, prefix: str) -> tuple[str, str, Mapping[str, Any]]:
    """Return tag, name of the class, and fields of a dataclass, named tuple or `StoredObject`."""
    if isinstance(value, StoredObject):
        return value.tag, value.name, value.fields
    kind = type(value)
    names: tuple[str, ...]
    if tag == "$namedtuple":
        names = kind._fields
        state = {**dict(zip(names, tuple.__iter__(value), strict=True)), **getattr(value, "__dict__", {})}
    else:
        names = tuple(field.name for field in dataclasses.fields(kind))
        inside = object.__getstate__(value)  # what is in the object, slots included, whatever its class makes of it
        state = {}
        for part in inside if isinstance(inside, tuple) else (inside,):
            state |= part or {}
    other = [name for name in state if name not in names and not name.startswith("__") and not _is_cache(kind, name)]
    if other:
        raise EncodingError(
            f"{prefix.lstrip('.') or 'the value'}: a {kind.__module__}.{kind.__qualname__} can't be stored so that it "
            f"comes back as it was, since it has {', '.join(other)} beside its fields; declare a field, such as "
            f"{other[0]}: ... = dataclasses.field(init=False)."
        )
    _classes[_name_of(kind)] = kind
    return tag, _name_of(kind), {name: state[name] for name in names if name in state}


def _is_cache(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)


def _instance(tag: str, name: str, fields: dict[str, Any]) -> Any:
    """Return an object of a known class with these fields, without running code of the class."""
    kind = _class_of(tag, name, fields)
    if kind is None:
        return StoredObject(tag, name, fields)
    if issubclass(kind, tuple):
        return tuple.__new__(kind, fields.values())
    made = object.__new__(kind)
    for key, value in fields.items():
        place = inspect.getattr_static(kind, key, None)
        if isinstance(place, types.MemberDescriptorType):  # a slot
            place.__set__(made, value)
        else:
            vars(made)[key] = value
    return made


def _class_of(tag: str, name: str, fields: Mapping[str, Any]) -> type | None:
    """Return the class of a stored value, also where its module has another name now, such as ``__main__``."""
    candidates = [_classes[name]] if name in _classes else []
    if not candidates:
        short = name.partition(":")[2]
        candidates = [kind for kind in _classes.values() if kind.__qualname__ == short]
    fitting = [kind for kind in candidates if _tag_of(kind) == tag and _has_fields(kind, fields)]
    return fitting[0] if len(fitting) == 1 else None


def _has_fields(kind: Any, fields: Mapping[str, Any]) -> bool:
    """Return whether a class has these fields, and no other that each value has."""
    if issubclass(kind, tuple):
        return list(fields) == list(kind._fields)
    own = dataclasses.fields(kind)
    missing = (
        field for field in own if field.name not in fields and field.init and field.default is dataclasses.MISSING
    )
    return fields.keys() <= {field.name for field in own} and not any(missing)


def _plain(value: Any) -> Any:
    if isinstance(value, StoredObject):
        return _plain(value.fields)
    if tag := _tag_of(type(value)):
        names = value._fields if tag == "$namedtuple" else [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name, None)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _encode_numeric(value: Any, tensors: Tensors | None, prefix: str) -> Any:
    """Return the form of a tensor, array, NumPy scalar, dtype or device; None for anything else."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_meta or value.is_quantized:
            return None
        return _encode_tensor(value, "$tensor", tensors, prefix)
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return {"$scalar": [value.dtype.str, base64.b64encode(value.tobytes()).decode()]}
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        array = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", copy=True)
        try:
            return _encode_tensor(torch.from_numpy(array), "$array", tensors, prefix)
        except TypeError:  # a long double
            return None
    if type(value) is torch.dtype:
        return {"$dtype": str(value).removeprefix("torch.")}
    if type(value) is torch.device:
        return {"$device": str(value)}
    return None


def _encode_mapping(value: Any, kind: type, tensors: Tensors | None, prefix: str, levels: int) -> Any:
    if kind is collections.defaultdict:
        raise EncodingError(f"{prefix.lstrip('.')}: a defaultdict can't be stored; make it a dict.")
    if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
        return {
            key: encode(item, tensors=tensors, prefix=f"{prefix}.{key}", levels=levels) for key, item in value.items()
        }
    pairs = [
        [encode(key, levels=levels), encode(item, tensors=tensors, prefix=f"{prefix}.{key}", levels=levels)]
        for key, item in value.items()
    ]
    return {f"${kind.__name__}": pairs}


def _pairs(body: Any, tensors: Mapping[str, torch.Tensor] | None) -> list[tuple[Any, Any]]:
    return [(decode(key), decode(item, tensors)) for key, item in body]


def _encode_tensor(value: torch.Tensor, tag: str, tensors: Tensors | None, prefix: str) -> Any:
    import torch

    from alcore.tensors import bytes_of

    value = value.detach().resolve_conj().resolve_neg()
    if tensors is not None and value.dtype is not torch.complex128:  # safetensors has no form for that one
        name = prefix.lstrip(".")
        while name in tensors or name == "__metadata__":
            name += "'"
        tensors[name] = value
        return {tag: name}
    raw = base64.b64encode(bytes_of(value).numpy().data).decode()
    return {tag: [str(value.dtype).removeprefix("torch."), list(value.shape), raw]}


def _decode_tensor(tag: str, body: Any, tensors: Mapping[str, torch.Tensor] | None) -> Any:
    import torch

    if isinstance(body, str):
        if tensors is None or body not in tensors:
            raise EncodingError(f"stored data names the tensor {body!r}, which is not there.")
        tensor = tensors[body]
    else:
        name, shape, data = body
        raw = bytearray(base64.b64decode(data))
        dtype = dtype_of(name)
        tensor = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        tensor = tensor.reshape(shape)
    return tensor.numpy() if tag == "$array" else tensor


def dtype_of(name: str) -> torch.dtype:
    """Return the dtype of this name; raises `EncodingError` where torch has none."""
    import torch

    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype):
        raise EncodingError(f"stored data names the dtype {name!r}, which torch doesn't have.")
    return dtype
