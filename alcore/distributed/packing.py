"""Values as bytes, to be sent to another process: JSON with tensors behind it, never pickled objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from alcore.codec import decode, dtype_of, encode


def describe(value: Any) -> tuple[bytes, list[torch.Tensor]]:
    """Return a value as the JSON that describes it, and the tensors that it leaves out."""
    tensors: dict[str, torch.Tensor] = {}
    described = encode(value, tensors=tensors)
    forms = [[name, str(one.dtype).removeprefix("torch."), list(one.shape)] for name, one in tensors.items()]
    return json.dumps({"value": described, "tensors": forms}).encode(), list(tensors.values())


def rebuild(text: bytes, fill: Callable[[torch.Tensor], None]) -> Any:
    """Return the value that `describe` was given; `fill` writes the bytes of each tensor in turn: uint8 (n,)."""
    header = json.loads(text)
    tensors = {name: torch.empty(shape, dtype=dtype_of(dtype)) for name, dtype, shape in header["tensors"]}
    for one in tensors.values():
        fill(bytes_of(one))
    return decode(header["value"], tensors)


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, on the CPU: uint8 (n,); its own memory where it is contiguous there."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    return flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)


def pack(value: Any) -> torch.Tensor:
    """Return a value as bytes: uint8 (n,)."""
    text, tensors = describe(value)
    head = torch.frombuffer(bytearray(len(text).to_bytes(8, "little") + text), dtype=torch.uint8)
    return torch.cat([head, *map(bytes_of, tensors)])


def unpack(packed: torch.Tensor) -> Any:
    """Return the value that `pack` was given."""
    start = 8 + int.from_bytes(bytes(packed[:8].numpy()), "little")
    rest = packed[start:]

    def fill(raw: torch.Tensor) -> None:
        nonlocal rest
        raw.copy_(rest[: len(raw)])
        rest = rest[len(raw) :]

    return rebuild(bytes(packed[8:start].numpy()), fill)
