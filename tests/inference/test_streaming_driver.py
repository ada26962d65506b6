"""Scoring with a real driver, on a terminal, and of a pool that is larger than memory should be."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tqdm import tqdm

from alcore.errors import Interrupted
from alcore.inference import streaming
from alcore.inference.streaming import chunks, top_k
from alcore.strategies import PointwiseQuery


class Watched(PointwiseQuery):
    """Scores by the first output, and remembers what it was given."""

    def score(self, outputs: Any) -> torch.Tensor:
        self.seen = outputs
        return outputs[:, 0]


def test_the_learner_is_in_eval_mode_without_gradients_and_gets_its_modes_back(build: Callable[..., Any]) -> None:
    seen = []

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.frozen, self.out = torch.nn.Dropout(0.9), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((self.training, self.drop.training, torch.is_grad_enabled()))
            return self.out(self.frozen(self.drop(x)))

    net = Net().train()
    net.frozen.eval()
    query = Watched(2)
    driver = build(learner=net, query_strategies=[query])
    top_k(driver, query.score, 2)
    assert set(seen) == {(False, False, False)}
    assert [net.training, net.drop.training, net.frozen.training] == [True, True, False]
    assert not query.seen.requires_grad
    with pytest.raises(ZeroDivisionError):
        top_k(driver, lambda outputs: 1 / 0, 2)  # type: ignore[arg-type, return-value]
    assert [net.training, net.drop.training, net.frozen.training] == [True, True, False]


def test_inference_fn_has_the_say(build: Callable[..., Any], toys: Any) -> None:
    pool = toys.pool()
    driver = build(train_datapool=pool, inference_fn=lambda learner, inputs: inputs[:, :1] * -1)
    best = top_k(driver, lambda outputs: outputs[:, 0], 3)
    candidates = pool.unlabeled_indices()
    expected = candidates[pool.inputs(candidates)[:, 0].argsort()[:3]]
    assert torch.equal(best.ids, expected)


def test_an_interruption_ends_a_pass(build: Callable[..., Any]) -> None:
    driver = build()
    driver.interrupt()
    for ids in (None, torch.arange(5)):
        with pytest.raises(Interrupted):
            list(chunks(driver, ids=ids))


# -- progress ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, and bars that are drawn at once and at each step."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    plain = functools.partial(tqdm, file=terminal, mininterval=0, ncols=90)
    monkeypatch.setattr(streaming, "tqdm", lambda **options: plain(**{**options, "delay": 0}))
    return terminal


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("ids", "whole"), [(None, 50), (torch.arange(10, 40), 30)])
def test_a_terminal_shows_a_bar_with_rate_and_time_left(
    bars: Terminal, build: Callable[..., Any], toys: Any, ids: torch.Tensor | None, whole: int
) -> None:
    list(chunks(build(train_datapool=toys.pool(50, labeled=3)), ids=ids))
    text = bars.getvalue()
    assert (
        f"scoring:  {16 * 100 // whole if ids is not None else 38}%" in text
    )  # of places in the pool, else of samples
    assert f"/{whole:.1f} [" in text
    assert "samples/s" in text
    assert "<00:" in text  # the time left
    assert text.split("\r")[-2:] == [" " * len(text.split("\r")[-2]), ""]  # nothing is left behind


@pytest.mark.usefixtures("small")
def test_a_bar_has_the_samples_that_a_step_chooses_from(bars: Terminal, build: Callable[..., Any], toys: Any) -> None:
    pool = toys.pool(50, labeled=0)
    pool.step_range = lambda _step: (10, 42)
    driver = build(train_datapool=pool)
    chunk_ids = torch.cat([ids for ids, _ in chunks(driver)])
    assert chunk_ids.tolist() == list(range(10, 42))
    assert "scoring:  50%" in bars.getvalue()
    assert "/32.0 [" in bars.getvalue()


@pytest.mark.usefixtures("small")
def test_a_pool_that_does_not_tell_its_size_has_a_bar_of_its_candidates(
    bars: Terminal, build: Callable[..., Any], toys: Any
) -> None:
    tensor_pool = toys.pool(50, labeled=3)
    pool = SimpleNamespace(
        inputs=tensor_pool.inputs, unlabeled_indices=lambda: tensor_pool.unlabeled_indices(), digest=tensor_pool.digest
    )
    list(chunks(build(unlabeled_datapool=pool)))
    assert "/47.0 [" in bars.getvalue()


@pytest.mark.usefixtures("small")
def test_a_bar_is_taken_away_when_scoring_fails(bars: Terminal, build: Callable[..., Any], toys: Any) -> None:
    calls: list[int] = []

    def score(outputs: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return outputs[:, 0] / (len(calls) < 2 or 1 // 0)

    try:
        top_k(build(train_datapool=toys.pool(50)), score, 3)
    except ZeroDivisionError:  # while the traceback is still there
        assert bars.getvalue().split("\r")[-2].strip() == ""
    else:
        pytest.fail("it must not be swallowed")


def test_progress_bar_is_not_shown_without_a_terminal(
    build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    list(chunks(build()))
    assert capsys.readouterr() == ("", "")


# -- memory ------------------------------------------------------------------------------------------------

MEMORY = """
import sys, threading, time
import numpy as np, torch
from types import SimpleNamespace
from alcore.inference import streaming
from alcore.pools.candidates import Candidates
from alcore.pools import TensorPool
from alcore.distributed.ranks import Ranks
torch.set_num_threads(1)
learner = torch.nn.Linear(64, 1)

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

before = anonymous()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
pool = TensorPool(np.memmap(sys.argv[1], np.float32, "r", shape=(int(sys.argv[2]), 64)))
candidates = Candidates(pool)
driver = SimpleNamespace(
    ranks=Ranks(), feasibility=SimpleNamespace(weights=lambda ids: None, kept=lambda ids: ids),
    choice_pool=pool, candidates=lambda size=2**16: candidates.chunks(size), learner=learner,
    infer=torch.no_grad()(learner), batch_size=1, costs=lambda samples: None,
)
best = streaming.top_k(driver, lambda outputs: outputs.flatten(), 100)
some = streaming.subset(driver, 1000, torch.Generator())
print(len(best.ids), len(some), peak[0] - before)
"""


def test_a_large_mapped_pool_is_never_loaded(tmp_path: Any) -> None:
    n = 1_500_000  # 384 MB, of which a file of zeros takes no disk
    np.memmap(tmp_path / "pool", np.float32, "w+", shape=(n, 64)).flush()
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "pool"), str(n)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    best, some, grown = out.split()
    assert (best, some) == ("100", "1000")
    assert float(grown) < 50
