"""`load_weights`: what is loaded into a learner, and how a file that doesn't fit is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alcore.errors import UsageError
from alcore.inference.weights import load_weights
from alcore.store.files import sha256_of


def net(width: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


def test_weights_and_buffers_are_loaded_and_digest_is_returned(path: Path) -> None:
    given, learner = net(), net()
    given(torch.randn(4, 2))
    save_file(dict(given.double().state_dict()), path)
    assert load_weights(learner, path) == sha256_of(path)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, given.state_dict()[name].to(value.dtype)), name


def test_checkpoint_of_a_run_is_taken(build, toys) -> None:
    driver = build(max_active_learning_steps=1)
    driver.run()
    learner = toys.learner(5)
    load_weights(learner, sorted((driver.log_dir / "ckpt").iterdir())[0])
    assert torch.equal(learner.weight, driver.learner.weight)


def test_names_and_shapes_that_differ_are_told_with_the_nearest(path: Path) -> None:
    state = net(4).state_dict()
    state["0.wieght"] = state.pop("0.weight").clone()
    save_file(state, path)
    with pytest.raises(UsageError) as told:
        load_weights(net(), path)
    message = str(told.value)
    assert "1 of the learner's 7 tensors are missing in the file: '0.weight' (the nearest is '0.wieght')" in message
    assert "1 of the file's 7 tensors are not the learner's: '0.wieght' (the nearest is '0.weight')" in message
    assert "'0.bias' is (4,) in the file and (3,) in the learner" in message


def test_learner_is_unchanged_where_weights_do_not_fit(path: Path) -> None:
    learner = net()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    save_file({"0.weight": torch.ones(3, 2)}, path)
    with pytest.raises(UsageError, match="6 of the learner's 7 tensors are missing"):
        load_weights(learner, path)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize(
    ("content", "fault"), [(None, "there is no weights file"), (b"text" * 9, "can't be read as safetensors")]
)
def test_file_that_holds_no_weights_is_refused(path: Path, content: bytes | None, fault: str) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=fault):
        load_weights(net(), path)


def test_another_file_than_the_expected_one_is_refused(path: Path) -> None:
    save_file(net().state_dict(), path)
    with pytest.raises(UsageError, match=r"driver\.weights_sha256 is 0000"):
        load_weights(net(), path, "0000")


def test_learner_without_weights_is_refused(path: Path) -> None:
    save_file(net().state_dict(), path)
    with pytest.raises(UsageError, match="function has no weights"):
        load_weights(lambda inputs: inputs, path)
