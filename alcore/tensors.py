"""Tensors as bytes, for digests, files and messages."""

from __future__ import annotations

import torch


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, on the CPU: uint8 (n,). A contiguous CPU tensor shares its memory with them."""
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().reshape(-1)
    if not flat.numel():
        return torch.empty(0, dtype=torch.uint8)
    if flat.stride() != (1,):  # also a single element, whose stride may be anything
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)
