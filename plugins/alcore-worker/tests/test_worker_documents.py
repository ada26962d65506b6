"""What is exchanged comes back as it was, and what is damaged or hostile is refused."""

import json
import math

import numpy as np
import pytest
import torch
from alcore_worker import documents, names
from alcore_worker.names import DocumentError
from hypothesis import given, settings
from hypothesis import strategies as st

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


def through(content):
    blobs = {}

    def put(raw):
        digest = __import__("hashlib").sha256(raw).hexdigest()
        blobs[digest] = raw
        return digest

    text = documents.write("it", content, put)
    return documents.read(text, blobs.__getitem__), text, blobs


@settings(max_examples=60, deadline=None)
@given(PLAIN)
def test_plain_values_come_back(value):
    assert through({"value": value})[0] == {"value": value}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_tensors_come_back_to_the_bit(dtype):
    tensor = torch.arange(6).to(dtype).reshape(2, 3).T
    content, _, blobs = through({"x": [tensor, tensor[0, 0]]})
    tensors = content["x"]
    assert bool(blobs) == (dtype == torch.bfloat16), "small arrays are in the document, as far as NumPy has their type"
    assert tensors[0].dtype == dtype
    assert torch.equal(tensors[0], tensor)
    assert tensors[1].shape == ()


def test_arrays_and_scalars_come_back():
    array = np.arange(4.0).astype(">f4")[::-1]
    content = through({"a": array, "s": np.float32(0.1), "nan": math.nan, "inf": -math.inf})[0]
    assert isinstance(content["a"], np.ndarray)
    assert content["a"].tolist() == [3.0, 2.0, 1.0, 0.0]
    assert content["s"] == float(np.float32(0.1))
    assert math.isnan(content["nan"])
    assert content["inf"] == -math.inf


def test_large_arrays_are_apart_and_their_content_is_checked():
    field = np.random.default_rng(0).random((200, 200))
    found, text, blobs = through({"value": field})
    assert len(text) < 1000
    assert np.array_equal(found["value"], field)
    assert names.blob_of(text) == next(iter(blobs))
    with pytest.raises(DocumentError, match="damaged"):
        documents.read(text, lambda digest: blobs[digest][:-1] + b"x")
    one, other = (documents.write(about, {"value": field}, lambda raw: str(hash(raw))) for about in "ab")
    assert one != other, "arrays of two documents are removed apart"


@pytest.mark.parametrize("value", [object(), {1: 2}, b"raw", {1, 2}, np.array(["a"]), np.array([None]), 1 + 2j])
def test_what_would_not_come_back_is_refused(value):
    with pytest.raises(DocumentError):
        through({"value": value})


@pytest.mark.parametrize(
    "text",
    [
        b"", b"nonsense", b"[]", b"\xff", b"[" * 100_000, b'{"format": 3, "content": {}}', b'{"format": 4}',
        b'{"format": 4, "content": []}', b'{"format": 4, "content": {"x": {"$tensor": "0"}}}',
        b'{"format": 4, "content": {"x": {"$tensor": {}}}}', b'{"format": 4, "content": {"x": {"$import": "os"}}}',
        b'{"format": 4, "content": {}, "blob": "../../etc/passwd"}', b'{"format": 4, "content": {}, "blob": 3}',
        b'{"format": 4, "content": {"x": {"$array": ["f4", [1], "!"]}}}',
        b'{"format": 4, "content": {"x": {"$array": ["f4", [2], "AAAAAA=="]}}}',
        b'{"format": 4, "content": {"x": {"$array": ["f4", [-1], "AAAAAA=="]}}}',
        b'{"format": 4, "content": {"x": {"$tensor": ["O8", [1], "AAAAAAAAAAA="]}}}',
        b'{"format": 4, "content": {"x": {"$float": []}}}', b" " * (names.LARGEST_DOCUMENT + 1),
    ],
)  # fmt: skip
def test_damaged_documents_are_refused(text):
    with pytest.raises(DocumentError):
        documents.read(text, lambda digest: b"")


@pytest.mark.parametrize("name", ["", "a", "../x-0123456789ab", "x-0123456789AB", "-0123456789ab", "a/b-0123456789ab"])
def test_names_of_runs_lead_nowhere(name):
    assert not names.is_run(name)


def test_names_of_tasks_say_their_request():
    name = names.task_name(3, 12, "ab" * 16, 2)
    assert names.is_task(name)
    assert names.request_of(name) == (3, 12, "ab" * 16, 2)
    assert not names.is_task(f"{name}/..")
    assert not names.is_task(name.replace("a", "A"))


def test_note_of_another_format_names_the_remedy():
    note = names.Note("run", 7, 60.0)
    assert names.read_note(note.to_bytes(), "run-0123456789ab", "here") == note
    other = json.dumps({**json.loads(note.to_bytes()), "format": 9}).encode()
    with pytest.raises(DocumentError, match=r"format 9, and this version of alcore-worker has 4\. Install the"):
        names.read_note(other, "run-0123456789ab", "here")
    for damaged in ({"seed": -1}, {"silent_after": 0}, {"silent_after": "60"}, {"run_id": "other"}):
        with pytest.raises(DocumentError, match="damaged"):
            names.read_note(json.dumps({**json.loads(note.to_bytes()), **damaged}).encode(), "run-0123456789ab", "here")
