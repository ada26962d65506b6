"""What is stored comes back as it was, the same in every process, or is refused."""

from __future__ import annotations

import collections
import enum
import json
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import codec
from alcore.codec import dumps, encode, loads, parse_json, parse_toml
from alcore.errors import EncodingError

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
]  # fmt: skip
SHAPES = [(), (0,), (3,), (2, 0, 3), (2, 3)]


def same(one: Any, other: Any) -> bool:
    """Equal in type, order and bits, NaN included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one * 0 + one) == math.copysign(1, other * 0 + other))  # fmt: skip  # noqa: E501
    return bool(one == other)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def made(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    values = torch.arange(math.prod(shape), dtype=torch.float64) % 2 + 1
    return values.reshape(shape).to(dtype)


keys = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["$tuple", "$", "$tensor", "$dict", "a.b", "__metadata__"]),
    st.integers(),
    st.booleans(),
    st.none(),
    st.tuples(st.integers(), st.text(max_size=3)),
)
tensors = st.builds(made, st.sampled_from(DTYPES), st.sampled_from(SHAPES))
arrays = st.builds(
    lambda dtype, shape: np.arange(math.prod(shape)).reshape(shape).astype(dtype),
    st.sampled_from(["bool", "i1", "u2", "i8", "f2", "f4", "f8", "c8", "c16"]),
    st.sampled_from(SHAPES),
)
scalars = st.sampled_from(
    [np.int64(-3), np.uint8(7), np.float32(0.1), np.float64("nan"), np.bool_(True), np.float16(2)]
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8),
    st.frozensets(st.one_of(st.integers(), st.text(max_size=3)), max_size=4),
    st.sets(st.tuples(st.text(max_size=2), st.booleans()), max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda:1")]),
    st.builds(collections.Counter, st.text(max_size=5)),
    tensors, arrays, scalars,
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_every_value_comes_back_inline(value: Any) -> None:
    text = codec.dumps(value)
    assert "\n" not in text
    assert same(codec.loads(text), value)


@settings(max_examples=200, deadline=None)
@given(values)
def test_every_value_comes_back_with_tensors_apart(value: Any) -> None:
    beside: dict[str, torch.Tensor] = {}
    data = json.loads(json.dumps(codec.encode(value, tensors=beside), allow_nan=False))
    assert same(codec.decode(data, beside), value)
    assert "__metadata__" not in beside  # safetensors keeps that name for itself


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensor_of_each_dtype_and_shape_comes_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    value = made(dtype, shape)
    assert same(codec.loads(codec.dumps(value)), value)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0)[2:9:3],
        torch.zeros(1).expand(4),
        torch.arange(6.0).reshape(2, 3)[:1, 1],
        torch.nn.Parameter(torch.ones(2)),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
    ],
    ids=["transposed", "strided", "expanded", "one element", "parameter", "conjugate", "negative"],
)
def test_view_comes_back_with_its_values(tensor: torch.Tensor) -> None:
    found = codec.loads(codec.dumps(tensor))
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    assert torch.equal(found, tensor)


def test_encoded_tensor_does_not_change_with_the_original() -> None:
    tensor = torch.zeros(2)
    text = codec.dumps(tensor)
    tensor += 1
    assert torch.equal(codec.loads(text), torch.zeros(2))


def test_decoded_tensors_and_arrays_can_be_written_to() -> None:
    tensor, array = codec.loads(codec.dumps((torch.zeros(2), np.zeros(2))))
    tensor[0] = 1
    array[0] = 1
    assert tensor[0] == array[0] == 1


@pytest.mark.parametrize("text", ["a\nb", "\u2028", "\ud800", "\x00", "é"])
def test_text_with_any_characters_comes_back(text: str) -> None:
    encoded = codec.dumps({text: text})
    assert encoded.isascii()
    assert codec.loads(encoded) == {text: text}


class Colour(enum.IntEnum):
    RED = 1


class Pair(collections.namedtuple("Pair", "a b")):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(), Colour.RED, Pair(1, 2), 1j, range(3), collections.defaultdict(list), bytearray(b"a"), lambda: 0,
        np.array(["a"]), np.array([None]), np.datetime64("2020-01-01"), np.ma.array([1]), np.zeros(2, np.longdouble),
        torch.eye(2).to_sparse(), torch.empty(2, device="meta"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("beside", [None, {}], ids=["inline", "beside"])
def test_other_type_is_refused_with_its_place(value: Any, beside: dict[str, torch.Tensor] | None) -> None:
    with pytest.raises(EncodingError, match=r"^strategies\.uq\.seen\.1: a "):
        codec.encode({"strategies": {"uq": {"seen": [0, value]}}}, tensors=beside)


def test_refused_type_is_named() -> None:
    with pytest.raises(EncodingError, match=r"^the value: a builtins\.object can't be stored"):
        codec.dumps(object())


def test_multistep_schedule_still_decays() -> None:
    def schedule() -> torch.optim.lr_scheduler.MultiStepLR:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 4], gamma=0.5)

    saved = codec.loads(codec.dumps(schedule().state_dict()))
    assert saved["milestones"] == collections.Counter({2: 2, 4: 1})
    restored = schedule()
    restored.load_state_dict(saved)
    rates = []
    for _ in range(4):
        restored.optimizer.step()
        restored.step()
        rates.append(restored.get_last_lr()[0])
    assert rates == [1.0, 0.25, 0.25, 0.125]


def test_adam_state_comes_back() -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    found = codec.loads(codec.dumps(state))
    assert list(found["state"]) == [0, 1]
    assert same(found["state"], state["state"])
    assert found["param_groups"][0]["betas"] == (0.9, 0.999)


_PROGRAM = """
import collections, json
from alcore import codec
from alcore.codec import dumps, encode, loads, parse_json, parse_toml
value = {"s": {"b", "a", "ccc"}, "f": frozenset({frozenset({"a", "z"}), frozenset({"b", "y"}), ("q", "r")}),
         "n": {1: {"$t": (1, 2.5)}}, "c": collections.Counter("hello")}
beside = {}
print(codec.dumps(value), json.dumps(codec.encode(value, tensors=beside)))
"""


def test_text_is_the_same_in_every_process() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in "0123"
    }
    assert len(texts) == 1


def test_reading_imports_neither_torch_nor_numpy() -> None:
    program = (
        'import sys, alcore.store.reading as r; r.tables.loads(\'{"$tuple": [1, {"$float": "nan"}]}\');'
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"$later": 1}', "tag '\\$later'"),
        ('{"$tensor": "model.w"}', "tensor 'model.w', which is not there"),
        ('{"$dtype": "os"}', "dtype 'os'"),
        ('{"$dtype": "load"}', "dtype 'load'"),
        ('{"$tensor": ["nn", [1], "AAAA"]}', "dtype 'nn'"),
    ],
)
def test_data_of_an_unknown_form_is_refused(text: str, what: str) -> None:
    with pytest.raises(EncodingError, match=what):
        codec.loads(text)


def test_export_is_json_that_any_program_reads() -> None:
    value = {
        1: (1, float("nan"), float("-inf"), np.float32(0.5)),
        "t": torch.tensor([1.0, math.inf]),
        "s": frozenset({"é"}),
        "n": None,
        "o": torch.float32,
    }
    text = codec.export_json(value)
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {
        "1": [1, None, None, 0.5], "t": [1.0, None], "s": ["é"], "n": None, "o": "torch.float32",
    }  # fmt: skip
    assert "é" in text
    assert text.endswith("}\n")


def _nested(levels: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {1: value} if kind is dict else kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_values_of_a_hundred_levels_come_back_and_deeper_ones_are_refused(kind: type) -> None:
    assert loads(dumps(_nested(100, kind))) == _nested(100, kind)
    with pytest.raises(EncodingError, match="nested more than 100 levels deep"):
        dumps(_nested(101, kind))
    with pytest.raises(EncodingError, match="nested more than 100 levels deep"):
        encode(_nested(101, kind), tensors={})


def test_bound_on_nesting_of_json_and_toml_is_a_number_whatever_the_recursion_limit() -> None:
    before = sys.getrecursionlimit()
    try:
        for limit in (1000, 1_000_000):
            sys.setrecursionlimit(limit)
            for parse, start in ((parse_json, ""), (parse_toml, "a = ")):
                parse(start + "[" * 100 + "]" * 100)
                for levels in (101, 100_000):
                    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
                        parse(start + "[" * levels + "]" * levels)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("text", ['["[{[{", "\\"[[["]', '{"a": "]]]]"}'])
def test_brackets_inside_text_are_no_levels(text: str) -> None:
    many = "[" + ", ".join([text] * 60) + "]"
    assert parse_json(many) == [json.loads(text)] * 60
    assert parse_json(many.encode()) == parse_json(many.encode("utf-16"))
