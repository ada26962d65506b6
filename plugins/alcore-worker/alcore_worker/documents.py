"""Tasks and answers as documents: JSON, with arrays as safetensors. What is read is data, and never code."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from alcore_worker.names import FORMAT, LARGEST_BLOB, LARGEST_DOCUMENT, DocumentError, is_digest, parsed

_INLINE = 2**16  # bytes of arrays that stand in the document itself
_DEEPEST = 50
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_OF_NUMPY = {torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool}


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
    tensors: dict[str, torch.Tensor] = {}
    document: dict[str, Any] = {"format": FORMAT, "content": _encoded(dict(content), tensors)}
    if tensors:
        try:
            raw = _saved(tensors, about)
        except Exception as error:
            raise DocumentError(f"an array can't be sent: {error}") from error
        if len(raw) <= _INLINE:
            document["arrays"] = base64.b64encode(raw).decode()
        elif len(raw) <= LARGEST_BLOB:
            document["blob"] = put_blob(raw)
        else:
            raise DocumentError(f"its arrays have {len(raw)} bytes; {LARGEST_BLOB} is the most that can be sent")
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
        tensors = _arrays(document, get_blob)
        content = _decoded(document["content"], tensors)
    except DocumentError:
        raise
    except Exception as error:
        raise DocumentError(f"{type(error).__name__}: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise DocumentError("its content is not an object")
    return content


def _saved(tensors: Mapping[str, torch.Tensor], about: str) -> bytes:
    metadata = {"about": about}
    if all(one.dtype in _OF_NUMPY for one in tensors.values()):  # the same bytes, in a quarter of the time
        raw: bytes = safetensors.numpy.save({name: one.numpy() for name, one in tensors.items()}, metadata)
        return raw
    return safetensors.torch.save(dict(tensors), metadata)


def _arrays(document: Mapping[str, Any], get_blob: Callable[[str], bytes]) -> dict[str, torch.Tensor]:
    if "blob" in document:
        digest = document["blob"]
        if not isinstance(digest, str) or not is_digest(digest):
            raise DocumentError(f"it names arrays {digest!r:.80}, which must be a SHA-256")
        raw = get_blob(digest)
        if hashlib.sha256(raw).hexdigest() != digest:
            raise DocumentError(f"its arrays {digest[:12]} are damaged: their content has another SHA-256")
    elif "arrays" in document:
        raw = base64.b64decode(document["arrays"], validate=True)
    else:
        return {}
    found: dict[str, torch.Tensor] = safetensors.torch.load(raw)
    return found


def _encoded(value: Any, tensors: dict[str, torch.Tensor], depth: int = 0) -> Any:
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:  # what there is most of
        return value
    if depth > _DEEPEST:
        raise DocumentError(f"a value is nested more than {_DEEPEST} times")
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _encoded_array(value, tensors)
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101 - the first one is quick
        if not all(isinstance(key, str) for key in value):
            raise DocumentError("a mapping has keys that are no text, which can't be sent")
        pairs = {str(key): _encoded(one, tensors, depth + 1) for key, one in value.items()}
        return {"$mapping": pairs} if any(key.startswith("$") for key in pairs) else pairs
    if isinstance(value, tuple | list):
        items = [_encoded(one, tensors, depth + 1) for one in value]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise DocumentError(f"a {type(value).__name__} can't be sent; use numbers, text, arrays, lists and mappings")


def _encoded_array(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    name = str(len(tensors))
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().resolve_conj().resolve_neg().contiguous().clone()
        return {"$tensor": name}
    try:
        array = np.asarray(value)
        tensors[name] = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise DocumentError(f"an array of the type {np.asarray(value).dtype} can't be sent") from error
    return {"$array" if isinstance(value, np.ndarray) else "$scalar": name}


def _decoded(data: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(data, list):
        return [_decoded(one, tensors) for one in data]
    if not isinstance(data, dict):
        return data
    tag = next((key for key in data if key.startswith("$")), None)
    if tag is None:
        return {key: _decoded(one, tensors) for key, one in data.items()}
    body = data[tag]
    match tag:
        case "$float":
            return float(body)
        case "$mapping":
            return {key: _decoded(one, tensors) for key, one in body.items()}
        case "$tuple":
            return tuple(_decoded(one, tensors) for one in body)
        case "$tensor":
            return tensors[body]
        case "$array":
            return tensors[body].numpy()
        case "$scalar":
            return tensors[body].item()
    raise DocumentError(f"it has the tag {tag!r:.40}, which this version of alcore-worker doesn't know")
