"""Values as bytes, to be sent to another process: JSON and raw tensors, never pickled objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from alcore.codec import decode, dtype_of, encode
from alcore.tensors import bytes_of


def split_tensors(value: Any) -> tuple[bytes, list[torch.Tensor]]:
    """Return a value as a JSON header and the tensors that the header refers to.

    Parameters
    ----------
    value
        Anything that `alcore.codec.encode` takes.

    Raises
    ------
    EncodingError
        For any other value.
    """
    tensors: dict[str, torch.Tensor] = {}
    encoded = encode(value, tensors=tensors)
    forms = [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in tensors.items()]
    return json.dumps({"value": encoded, "tensors": forms}).encode(), list(tensors.values())


def join_tensors(header: bytes, fill: Callable[[torch.Tensor], None]) -> Any:
    """Return the value that `split_tensors` was given.

    Parameters
    ----------
    header
        The JSON header.
    fill
        Called once for each tensor, in order, with its memory: uint8 (n,). It must write the tensor's bytes there.
    """
    content = json.loads(header)
    tensors = {name: torch.empty(shape, dtype=dtype_of(dtype)) for name, dtype, shape in content["tensors"]}
    for tensor in tensors.values():
        fill(bytes_of(tensor))
    return decode(content["value"], tensors)


def pack(value: Any) -> torch.Tensor:
    """Return a value as one block of bytes: uint8 (n,)."""
    header, tensors = split_tensors(value)
    head = torch.frombuffer(bytearray(len(header).to_bytes(8, "little") + header), dtype=torch.uint8)
    return torch.cat([head, *map(bytes_of, tensors)])


def unpack(packed: torch.Tensor) -> Any:
    """Return the value that `pack` was given."""
    start = 8 + int.from_bytes(bytes(packed[:8].numpy()), "little")
    rest = packed[start:]

    def fill(memory: torch.Tensor) -> None:
        nonlocal rest
        memory.copy_(rest[: len(memory)])
        rest = rest[len(memory) :]

    return join_tensors(bytes(packed[8:start].numpy()), fill)
