"""JSON that comes back as it was: tuples, integer keys, non-finite floats, tensors and arrays.

What JSON has no form for is written as an object with one key that starts with ``$``. A type that is not
listed here is refused, since it would come back as something else.
"""

from __future__ import annotations

import base64
import collections
import json
import math
import re
import tomllib
from collections.abc import Mapping
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
        NumPy scalar, torch dtype or device.
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
    if levels < 1 and isinstance(value, list | tuple | set | frozenset | dict):
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
    raise EncodingError(
        f"{prefix.lstrip('.') or 'the value'}: a {kind.__module__}.{kind.__qualname__} can't be stored so that it "
        "comes back as it was; use numbers, strings, tensors, arrays, and lists, tuples or dicts of these."
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
    raise EncodingError(f"stored data has the tag {tag!r}, which this version of alcore doesn't know.")


def dumps(value: Any) -> str:
    """Return one line of JSON from which `loads` makes the same value."""
    return _to_line(encode(value))


def loads(text: str) -> Any:
    """Return what `dumps` was given."""
    return decode(parse_json(text, deepest=4 * _DEEPEST))  # a mapping of integer keys has three levels


def export_json(value: Any) -> str:
    """Return JSON for other programs to read: tuples as lists, tensors as numbers, NaN and infinity as null."""
    return json.dumps(_plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
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

    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise EncodingError(f"stored data names the dtype {name!r}, which torch doesn't have.")
    return found
