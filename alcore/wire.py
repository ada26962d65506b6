"""Values as bytes, to be sent to another process: JSON with tensors behind it, never pickled objects."""

from __future__ import annotations

import json
from typing import Any

import torch

from alcore.store.codec import decode, dtype_of, encode


def form(tensor: torch.Tensor) -> tuple[str, list[int]]:
    """Return dtype and shape of a tensor as plain data."""
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape)


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, on the CPU: uint8 (n,); its own memory where it is contiguous there."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    return flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)


def pack(value: Any) -> torch.Tensor:
    """Return a value as bytes: uint8 (n,)."""
    tensors: dict[str, torch.Tensor] = {}
    described = encode(value, tensors=tensors)
    header = {"value": described, "tensors": [[name, *form(one)] for name, one in tensors.items()]}
    text = json.dumps(header).encode()
    head = torch.frombuffer(bytearray(len(text).to_bytes(8, "little") + text), dtype=torch.uint8)
    return torch.cat([head, *map(bytes_of, tensors.values())])


def unpack(packed: torch.Tensor) -> Any:
    """Return the value that `pack` was given."""
    start = 8 + int.from_bytes(bytes(packed[:8].numpy()), "little")
    header = json.loads(bytes(packed[8:start].numpy()))
    tensors = {}
    for name, dtype, shape in header["tensors"]:
        one = torch.empty(shape, dtype=dtype_of(dtype))
        raw = bytes_of(one)
        raw.copy_(packed[start : start + len(raw)])
        start += len(raw)
        tensors[name] = one
    return decode(header["value"], tensors)
