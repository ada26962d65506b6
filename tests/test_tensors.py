"""Tensors as bytes: of every dtype and layout, wherever they are needed."""

from __future__ import annotations

import pytest
import torch

from alcore.codec import dumps, loads
from alcore.distributed.packing import pack, unpack
from alcore.inference import model_digest
from alcore.pools import TensorPool
from alcore.tensors import bytes_of

LAYOUTS = {
    "contiguous": torch.arange(6.0),
    "no axis": torch.tensor(2.5),
    "no element": torch.empty(0, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
    "every second": torch.arange(6)[::2],
    "expanded": torch.ones(3).expand(2, 3),
    "one element of a column": torch.arange(10.0).reshape(2, 5)[:1, ::3][:, :1],
    "one element with a stride": torch.arange(10)[::5][:1],
    "one of two": torch.arange(10, dtype=torch.bfloat16).as_strided((1,), (7,)),
    "bool": torch.tensor([True, False]),
    "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "negative": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
each_layout = pytest.mark.parametrize("tensor", LAYOUTS.values(), ids=LAYOUTS.keys())


class Holder(torch.nn.Module):
    """A learner whose only weights are a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("held", tensor.detach())


@each_layout
def test_bytes_are_those_of_a_plain_copy(tensor: torch.Tensor) -> None:
    plain = torch.tensor(tensor.tolist(), dtype=tensor.dtype).reshape(tensor.shape)
    expected = b"" if not plain.numel() else plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    raw = bytes_of(tensor)
    assert raw.dtype == torch.uint8
    assert raw.shape == (len(expected),)
    assert raw.numpy().tobytes() == expected


@each_layout
def test_another_rank_receives_the_values(tensor: torch.Tensor) -> None:
    received = unpack(pack({"it": tensor}))["it"]
    assert received.dtype == tensor.dtype
    assert received.tolist() == tensor.tolist()


@each_layout
def test_stored_as_text_it_comes_back(tensor: torch.Tensor) -> None:
    back = loads(dumps(tensor))
    assert back.dtype == tensor.dtype
    assert back.tolist() == tensor.tolist()


@each_layout
def test_digests_depend_on_values_alone(tensor: torch.Tensor) -> None:
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    assert model_digest(Holder(tensor)) == model_digest(Holder(plain))
    if tensor.dim():
        assert TensorPool(tensor.detach()).digest() == TensorPool(plain).digest()


def test_contiguous_tensor_shares_its_memory() -> None:
    tensor = torch.zeros(3, 2)
    bytes_of(tensor).fill_(255)
    assert bool(tensor.isnan().all())
