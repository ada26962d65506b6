"""Values that are packed come back as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from outcomes import VALUES, same

from alcore.distributed import packing
from alcore.errors import EncodingError


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
def test_packed_value_is_unpacked_unchanged(value: Any) -> None:
    assert same(packing.unpack(packing.pack(value)), value)


def test_split_tensors_keeps_tensors_out_of_the_header() -> None:
    weights = torch.arange(1000.0)
    header, tensors = packing.split_tensors({"weights": weights, "step": 3})
    assert len(header) < 200
    assert len(tensors) == 1
    assert torch.equal(tensors[0], weights)


def test_pack_refuses_objects_that_codec_can_not_store() -> None:
    with pytest.raises(EncodingError, match=r"builtins\.object can't be stored"):
        packing.pack([1, object()])
