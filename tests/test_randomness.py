"""Random streams: one a purpose, the same in every process."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.codec import dumps
from alcore.protocols import Phase
from alcore.randomness import (
    derive_generator,
    derive_seed,
    global_rng_state,
    preserve_rng_state,
    seed_everything,
    set_global_rng_state,
)
from alcore.store import checkpoints


def test_seeds_are_what_they_were() -> None:
    """A change here would change every run that is resumed."""
    assert derive_seed(0) == 2033344993903900207
    assert derive_seed(3, 1, Phase.QUERY, "uq", "") == 4761925484666918459


@given(st.integers(0, 2**64), st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3))
def test_seeds_fit_a_generator(seed: int, purpose: list[int | str]) -> None:
    derived = derive_seed(seed, *purpose)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *purpose)
    torch.Generator().manual_seed(derived)


def test_purposes_are_told_apart() -> None:
    purposes = [(), (0,), (1,), (0, "a"), ("a", 0), ("a0",), ("0a",), (0, "", "a"), (0, "a", ""), (Phase.QUERY,)]
    assert len({derive_seed(seed, *purpose) for seed in (0, 1) for purpose in purposes}) == 2 * len(purposes)
    assert derive_seed(1, 1) != derive_seed(11)


def test_a_phase_is_its_name() -> None:
    assert derive_seed(0, Phase.QUERY) == derive_seed(0, "query")


def test_a_generator_starts_anew() -> None:
    def draw(*purpose: object) -> list[float]:
        return torch.rand(3, generator=derive_generator(0, *purpose)).tolist()

    assert draw("a") == draw("a")
    assert draw("a") != draw("b")


def test_deriving_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    torch.rand(3, generator=derive_generator(0, "a"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tobytes())


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_all_global_generators_are_seeded(seed: int) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(seed)
    first = draw()
    draw()
    seed_everything(seed)
    assert draw() == first
    seed_everything(seed + 1)
    assert all(one != other for one, other in zip(draw(), first, strict=True))


# -- the state of the global generators ------------------------------------------------------------------


def drawn() -> tuple[Any, ...]:
    return random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), torch.rand(3).tolist()


def test_global_generators_go_on_as_before_a_checkpoint(tmp_path: Path) -> None:
    random.gauss(0, 1)  # keeps a second number for later
    np.random.standard_normal()
    checkpoints.publish(tmp_path, "c", {"rng": global_rng_state()})
    expected = drawn()
    set_global_rng_state(checkpoints.load(tmp_path / "c.safetensors")["rng"])
    assert drawn() == expected


def test_reading_the_state_does_not_move_the_generators() -> None:
    assert dumps(global_rng_state()) == dumps(global_rng_state())


def test_preserved_state_is_back_after_the_block_whatever_it_draws_or_raises() -> None:
    before = dumps(global_rng_state())

    def fail() -> None:
        drawn()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), preserve_rng_state():
        fail()
    assert dumps(global_rng_state()) == before
