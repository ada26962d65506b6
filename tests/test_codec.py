"""What is stored comes back as it was, the same in every process, or is refused."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import json
import math
import os
import subprocess
import sys
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import codec
from alcore.codec import dumps, encode, loads, parse_json, parse_toml
from alcore.errors import EncodingError

T = TypeVar("T")
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
    decoded = codec.loads(codec.dumps(tensor))
    assert type(decoded) is torch.Tensor
    assert not decoded.requires_grad
    assert torch.equal(decoded, tensor)


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


class Color(enum.IntEnum):
    RED = 1


class Pair(collections.namedtuple("Pair", "a b")):
    pass


class Result(NamedTuple):
    y: Any
    ok: bool = True


@dataclasses.dataclass
class Case:
    """Counts how often its code is run."""

    x: Any
    name: str = "a"
    size: int = dataclasses.field(default=0, init=False)
    runs: ClassVar[int] = 0

    def __post_init__(self) -> None:
        type(self).runs += 1
        self.size += 1

    def __setattr__(self, name: str, value: Any) -> None:
        type(self).runs += 1
        super().__setattr__(name, value)

    @functools.cached_property
    def twice(self) -> Any:
        return 2 * self.x


@dataclasses.dataclass(frozen=True)
class Frozen(Generic[T]):
    case: T
    results: list[Result]


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: Any
    inner: Any = None


class Child(Slotted):
    """Has a `__dict__` beside the slots."""


@dataclasses.dataclass
class Ended:
    x: Any

    def __del__(self) -> None: ...


@dataclasses.dataclass
class More(Exception):
    x: Any


@dataclasses.dataclass
class Told:
    x: Any

    def __post_init__(self) -> None:
        self.y = self.x


@pytest.mark.parametrize(
    "value",
    [
        object(), Color.RED, Case, Ended(1), More(1), Slotted, Told(1), 1j, range(3),
        collections.defaultdict(list), bytearray(b"a"), lambda: 0,
        np.array(["a"]), np.array([None]), np.datetime64("2020-01-01"), np.ma.array([1]), np.zeros(2, np.longdouble),
        torch.eye(2).to_sparse(), torch.empty(2, device="meta"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("beside", [None, {}], ids=["inline", "beside"])
def test_other_type_is_refused_with_its_place(value: Any, beside: dict[str, torch.Tensor] | None) -> None:
    with pytest.raises(EncodingError, match=r"^strategies\.uq\.seen\.1: a "):
        codec.encode({"strategies": {"uq": {"seen": [0, value]}}}, tensors=beside)


def alike(one: Any, other: Any) -> bool:
    """Equal in type and fields, inner ones too."""
    if dataclasses.is_dataclass(one) or hasattr(one, "_fields"):
        names = getattr(one, "_fields", None) or [field.name for field in dataclasses.fields(one)]
        pairs = ((getattr(one, name), getattr(other, name)) for name in names)
        return type(one) is type(other) and all(alike(*pair) for pair in pairs)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return same(one, other)


X = torch.arange(3, dtype=torch.float64)
OBJECTS = [
    Case(X, "b"), Result(X, False), Pair(1, X), Slotted(X, Slotted(1)), Child(X), Frozen(Case(X), [Result(1.5)]),
    Frozen[Case](Case(np.ones(2)), []), [Slotted(None, {"a": Result({1: 2})})],
]  # fmt: skip


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("beside", [False, True], ids=["inline", "beside"])
def test_dataclasses_and_named_tuples_come_back_without_running_their_code(value: Any, beside: bool) -> None:
    runs = Case.runs
    tensors: dict[str, torch.Tensor] | None = {} if beside else None
    data = json.loads(json.dumps(codec.encode(value, tensors=tensors)))
    back = codec.decode(data, tensors)
    assert alike(back, value)
    assert Case.runs == runs
    assert codec.dumps(back) == codec.dumps(value)


def test_other_programs_get_the_fields_whether_the_class_is_known_or_not(unmet: dict[str, type]) -> None:
    value = Frozen(Case(X), [Result(1), Result(float("nan"))])
    exported = json.loads(codec.export_json(value))
    assert exported["results"] == [{"y": 1, "ok": True}, {"y": None, "ok": True}]
    assert exported["case"] == {"x": [0, 1, 2], "name": "a", "size": 1}
    text = codec.dumps(value)
    unmet.clear()
    assert json.loads(codec.export_json(codec.loads(text))) == exported


def test_what_a_cached_property_keeps_is_no_field() -> None:
    case = Case(X)
    assert case.twice is not None
    assert "twice" not in vars(codec.loads(codec.dumps(case)))


def test_attribute_that_is_no_field_is_refused_with_the_remedy() -> None:
    with pytest.raises(EncodingError, match=r"^a: a .*Told can't be stored .*it has y beside .*y: \.\.\. = data"):
        codec.encode({"a": Told(1)})


@pytest.fixture
def unmet(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Let this process have met no class; return those that it meets."""
    met: dict[str, type] = {}
    monkeypatch.setattr(codec, "_classes", met)
    return met


def test_value_of_a_class_that_is_not_known_keeps_its_text(unmet: dict[str, type]) -> None:
    text = codec.dumps({"a": [Frozen(Case(X), [Result(1)])]})
    unmet.clear()
    stored = codec.loads(text)
    assert codec.unknown_types(stored) == [f"{__name__}:{name}" for name in ("Case", "Frozen", "Result")]
    assert codec.dumps(stored) == text
    assert json.loads(codec.export_json(stored))["a"][0]["results"] == [{"y": 1, "ok": True}]
    assert not unmet
    codec.learn_types_in(OBJECTS)
    assert type(codec.resolved(stored)["a"][0]) is Frozen
    assert codec.unknown_types(codec.resolved(stored)) == []


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "this:Zen", f"{__name__}:Case", "alcore.protocols:Label", "builtins:object", "", ":"]
)
@pytest.mark.parametrize("tag", ["$dataclass", "$namedtuple"])
def test_stored_name_imports_nothing_and_finds_no_class_that_the_run_does_not_use(
    unmet: dict[str, type], name: str, tag: str
) -> None:
    codec.learn_types([object(), collections.Counter(), torch.nn.Linear(1, 1), codec.dumps])
    stored = codec.loads(json.dumps({tag: {"class": name, "fields": {"x": 1}}}))
    assert type(stored) is codec.StoredObject
    assert "this" not in sys.modules
    assert not unmet


@pytest.mark.parametrize("body", [1, [], {}, {"class": "a:B"}, {"class": "a:B", "fields": [1]}])
def test_malformed_object_is_refused(body: Any) -> None:
    with pytest.raises(EncodingError, match="without a class and its fields"):
        codec.decode({"$dataclass": body})


@pytest.mark.parametrize("fields", [{}, {"x": 1, "other": 2}, {"name": "a"}])
def test_class_with_other_fields_now_is_not_the_one_that_was_stored(fields: dict[str, Any]) -> None:
    codec.learn_types_in(Case(1))
    stored = codec.decode({"$dataclass": {"class": f"{__name__}:Case", "fields": fields}})
    assert type(stored) is codec.StoredObject


def test_field_that_came_later_has_its_default() -> None:
    codec.learn_types_in(Case(1))
    back = codec.decode({"$dataclass": {"class": f"{__name__}:Case", "fields": {"x": 1}}})
    assert (type(back), back.name, back.size) == (Case, "a", 0)


def test_classes_are_learned_from_the_modules_of_parts_and_their_bases(unmet: dict[str, type]) -> None:
    class Part:
        @dataclasses.dataclass
        class Item:
            x: Any

    codec.learn_types([Part()])
    assert {kind.__qualname__.rpartition(".")[2] for kind in unmet.values()} >= {"Case", "Slotted", "Result", "Item"}
    assert all(name.startswith(f"{__name__}:") for name in unmet)
    unmet.clear()
    elsewhere = type("Elsewhere", (Part,), {"__module__": "nowhere"})
    codec.learn_types([elsewhere()])
    assert f"{__name__}:Case" in unmet
    unmet.clear()
    codec.learn_types([alike])
    assert f"{__name__}:Case" in unmet


def test_class_is_found_where_its_module_has_another_name(unmet: dict[str, type]) -> None:
    text = codec.dumps(Slotted(1)).replace(__name__, "__main__")
    assert type(codec.loads(text)) is Slotted
    unmet["other:Slotted"] = type("Slotted", (Slotted,), {"__module__": "other", "__qualname__": "Slotted"})
    assert type(codec.loads(text)) is codec.StoredObject  # it might be either


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
    decoded = codec.loads(codec.dumps(state))
    assert list(decoded["state"]) == [0, 1]
    assert same(decoded["state"], state["state"])
    assert decoded["param_groups"][0]["betas"] == (0.9, 0.999)


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
        'import sys, alcore.store.reading as r; r.facts.loads(\'{"$tuple": [1, {"$float": "nan"}]}\');'
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


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
