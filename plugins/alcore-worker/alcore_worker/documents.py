"""Tasks and answers as documents: JSON, with large arrays as safetensors. What is read is data, and never code."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch

from alcore_worker.names import FORMAT, LARGEST_BLOB, LARGEST_DOCUMENT, DocumentError, is_digest, parsed

_INLINE = 2**16  # bytes of arrays that stand in the document itself
_DEEPEST = 50
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_PLAIN = frozenset({type(None), bool, int, str})
_ARRAY_TYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])
_TENSOR_TYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128}
)


def write(about: str, content: Mapping[str, Any], put_blob: Callable[[bytes], str]) -> bytes:
    """Return a document.

    Parameters
    ----------
    about
        What stands in the arrays too, so that those of another document have another SHA-256 and are removed apart.
    content
        None, booleans, numbers, text, arrays, tensors, and lists, tuples and mappings of these.
    put_blob
        Stores the arrays where they are large, and returns their SHA-256.

    Raises
    ------
    DocumentError
        For a value of another type, and for one that is too large.
    """
    apart = _Apart()
    document: dict[str, Any] = {"format": FORMAT, "content": _encoded(dict(content), apart)}
    if apart.tensors:
        try:
            raw = safetensors.torch.save(apart.tensors, {"about": about})
        except Exception as error:
            raise DocumentError(f"an array can't be sent: {error}") from error
        if len(raw) > LARGEST_BLOB:
            raise DocumentError(f"its arrays have {len(raw)} bytes; {LARGEST_BLOB} is the most that can be sent")
        document["blob"] = put_blob(raw)
    text = _JSON.encode(document).encode()
    if len(text) > LARGEST_DOCUMENT:
        raise DocumentError(f"it has {len(text)} bytes without its arrays; {LARGEST_DOCUMENT} is the most")
    return text


def read(text: bytes, get_blob: Callable[[str], bytes]) -> dict[str, Any]:
    """Return the content of a document.

    Parameters
    ----------
    text
        The document.
    get_blob
        Returns the arrays of this SHA-256.

    Raises
    ------
    DocumentError
        If it is not a document of this format.
    """
    document = parsed(text)
    if document.get("format") != FORMAT:
        raise DocumentError(
            f"its format is {document.get('format')!r:.40}, and this version of alcore-worker reads {FORMAT}"
        )
    try:
        tensors = _tensors_apart(document, get_blob)
        content = _decoded(document["content"], tensors)
    except DocumentError:
        raise
    except Exception as error:
        raise DocumentError(f"{type(error).__name__}: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise DocumentError("its content is not an object")
    return content


class _Apart:
    """The arrays of a document that don't stand in it, for which it has no room.

    Attributes
    ----------
    tensors : dict of str to torch.Tensor
        By the name that stands in their place.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._room = _INLINE

    def takes_in(self, size: int) -> bool:
        """Return whether the document itself has room for an array of so many bytes, and take that room."""
        if size > self._room:
            return False
        self._room -= size
        return True

    def add(self, tensor: torch.Tensor) -> str:
        """Add a tensor; return its name."""
        name = str(len(self.tensors))
        self.tensors[name] = tensor.contiguous().clone()
        return name


def _tensors_apart(document: Mapping[str, Any], get_blob: Callable[[str], bytes]) -> dict[str, torch.Tensor]:
    if "blob" not in document:
        return {}
    digest = document["blob"]
    if not isinstance(digest, str) or not is_digest(digest):
        raise DocumentError(f"it names arrays {digest!r:.80}, which must be a SHA-256")
    raw = get_blob(digest)
    if hashlib.sha256(raw).hexdigest() != digest:
        raise DocumentError(f"its arrays {digest[:12]} are damaged: their content has another SHA-256")
    tensors: dict[str, torch.Tensor] = safetensors.torch.load(raw)
    return tensors


def _encoded(value: Any, apart: _Apart, depth: int = 0) -> Any:
    if type(value) in _PLAIN:
        return value
    if depth > _DEEPEST:
        raise DocumentError(f"a value is nested more than {_DEEPEST} times")
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, torch.Tensor):
        return {"$tensor": _encoded_tensor(value, apart)}
    if isinstance(value, np.ndarray | np.generic):
        return {"$array" if isinstance(value, np.ndarray) else "$scalar": _encoded_array(value, apart)}
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101 - the first one is quick
        pairs, has_tag = {}, False
        for key, member in value.items():
            if not isinstance(key, str):
                raise DocumentError("a mapping has keys that are no text, which can't be sent")
            has_tag = has_tag or key.startswith("$")
            pairs[str(key)] = member if type(member) in _PLAIN else _encoded(member, apart, depth + 1)
        return {"$mapping": pairs} if has_tag else pairs
    if isinstance(value, tuple | list):
        items = [_encoded(member, apart, depth + 1) for member in value]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise DocumentError(f"a {type(value).__name__} can't be sent; use numbers, text, arrays, lists and mappings")


def _encoded_tensor(value: torch.Tensor, apart: _Apart) -> Any:
    """Return dtype, shape and values of a tensor, or its name where it is apart."""
    if value.layout != torch.strided:
        raise DocumentError(f"a tensor of the layout {value.layout} can't be sent")
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype in _TENSOR_TYPES and apart.takes_in(tensor.nbytes):
        return _in_place(tensor.numpy())
    return apart.add(tensor)


def _encoded_array(value: Any, apart: _Apart) -> Any:
    """Return dtype, shape and values of an array, or its name where it is apart."""
    array = np.asarray(value)
    if array.dtype.str[1:] not in _ARRAY_TYPES:
        raise DocumentError(f"an array of the type {array.dtype} can't be sent")
    if apart.takes_in(array.nbytes):
        return _in_place(array)
    return apart.add(torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C")))


def _in_place(array: np.ndarray[Any, Any]) -> list[Any]:
    code = array.dtype.str
    raw = (array.byteswap() if code[0] == ">" else array).tobytes()
    return [code[1:], list(array.shape), base64.b64encode(raw).decode()]


def _decoded(data: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(data, list):
        return [_decoded(member, tensors) for member in data]
    if not isinstance(data, dict):
        return data
    tag = next((key for key in data if key[:1] == "$"), None)
    if tag is None:
        return {key: member if type(member) in _PLAIN else _decoded(member, tensors) for key, member in data.items()}
    body = data[tag]
    match tag:
        case "$float":
            return float(body)
        case "$mapping":
            return {key: _decoded(member, tensors) for key, member in body.items()}
        case "$tuple":
            return tuple(_decoded(member, tensors) for member in body)
        case "$tensor":
            return tensors[body] if isinstance(body, str) else torch.from_numpy(_decoded_array(*body))
        case "$array":
            return tensors[body].numpy() if isinstance(body, str) else _decoded_array(*body)
        case "$scalar":
            return (tensors[body] if isinstance(body, str) else _decoded_array(*body)).item()
    raise DocumentError(f"it has the tag {tag!r:.40}, which this version of alcore-worker doesn't know")


def _decoded_array(code: str, shape: Sequence[int], text: str) -> np.ndarray[Any, Any]:
    if code not in _ARRAY_TYPES or not all(type(length) is int and length >= 0 for length in shape):
        raise DocumentError(f"it has an array of the type {code!r:.40} and the shape {shape!r:.80}")
    raw = bytearray(base64.b64decode(text, validate=True))  # what is decoded can be written to
    return np.frombuffer(raw, dtype=f"<{code}").reshape(shape)
