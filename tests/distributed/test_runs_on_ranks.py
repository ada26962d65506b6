"""A run on several ranks: the same choices for any number of ranks, equal weights, each label bought once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alcore_testing.essence import differences, essence_of
from outcomes import ended

from alcore.store.reading import Run


def test_any_number_of_ranks_chooses_the_same_samples_and_measures_the_same(
    run_experiment: Any, tmp_path: Path
) -> None:
    results = {}
    for count in (1, 2, 3, 4):
        ended(run_experiment(count, run_id="same", root=f"runs{count}", train=False, samples=1000))
        run = Run(tmp_path / f"runs{count}" / "same")
        requests = [(r["step"], r["ordinal"], r["sample"], r["item"], r["score"], r["value"]) for r in run.requests()]
        results[count] = requests, repr(run.records())
    assert len(results[1][0]) > 20
    assert results[1] == results[2] == results[3] == results[4]


def test_ranks_count_the_same_samples_as_pending(run_experiment: Any, tmp_path: Path) -> None:
    requests = {}
    for count in (1, 2, 3):
        ended(run_experiment(count, root=f"runs{count}", train=False, label="a step late", steps=4))
        run = Run(tmp_path / f"runs{count}" / "r1")
        requests[count] = [(r["step"], r["ordinal"], r["sample"], r["score"], r["state"]) for r in run.requests()]
    assert {row[-1] for row in requests[1]} == {"labeled", "open"}
    assert requests[1] == requests[2] == requests[3]


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_end_with_equal_weights_and_each_label_is_bought_once(
    run_experiment: Any, tmp_path: Path, count: int
) -> None:
    reason, _, labeled = ended(run_experiment(count, validate=True))
    run = Run(tmp_path / "runs" / "r1")
    assert reason == "all 3 steps are done"
    paid = (tmp_path / "paid").read_text().splitlines()
    assert len(paid) == len(set(paid)) == len(run.requests()) == labeled - 20
    assert run.meta()["ranks"] == count
    assert [path.name for path in (tmp_path / "runs").glob("[!.]*")] == ["r1"]


def test_run_of_one_rank_is_an_ordinary_run(run_experiment: Any, tmp_path: Path) -> None:
    ended(run_experiment(1))
    assert "ranks" not in Run(tmp_path / "runs" / "r1").meta()


def test_equal_seeds_give_equal_runs(run_experiment: Any, tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / "paid").unlink(missing_ok=True)
        ended(run_experiment(2, root=root, every_epoch=True))
    assert differences(*(essence_of(tmp_path / root / "r1") for root in ("one", "two"))) == []


def test_gradients_are_the_mean_over_the_batches_of_all_ranks(start: Any, tmp_path: Path) -> None:
    """Two ranks with batches of 4 train as one process that takes the mean over the same two batches."""
    script = tmp_path / "averaging.py"
    script.write_text(AVERAGING)
    for count in (2, 3):
        processes = start(count, script).wait()
        assert processes.codes == [0] * count, "\n".join(processes.texts)


def test_what_a_learner_saw_of_the_labels_is_the_same_on_all_ranks(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "looking.py"
    script.write_text(LOOKING)
    processes = start(2, script).wait()
    assert processes.codes == [0, 0], "\n".join(processes.texts)


LOOKING = """
import queue, torch
from alcore import DistributedManager, Driver, TensorPool, config as c

class Looks(torch.nn.Linear):
    def __init__(self):
        super().__init__(3, 1)
        self.register_buffer("mean", torch.zeros(()))

    def begin_training(self, batches):
        self.mean.fill_(torch.cat([targets for _, targets in batches]).mean() + manager.rank)

manager = DistributedManager()
torch.manual_seed(4)
inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
pool = TensorPool(inputs, inputs.sum(1), labeled=range(26))
learner, means = Looks(), []

def step(model, batch):
    means.append(float(model.mean))
    return torch.nn.functional.mse_loss(model(batch[0])[:, 0], batch[1])

driver = Driver(
    c.DriverConfig(4, max_active_learning_steps=1, seed=2, dist_manager=manager), learner,
    c.StrategiesConfig([], queue.Queue), c.TrainingConfig(pool, 2),
)
driver.run(step)
expected = float(pool.batch(torch.arange(26))[1].mean())
assert means == [expected] * len(means), (means, expected)
"""

AVERAGING = """
import queue, torch
from alcore import DistributedManager, Driver, TensorPool, config as c

def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    return TensorPool(inputs, (inputs.sum(1) > 0).long(), labeled=range(26))

torch.manual_seed(4)
learner = torch.nn.Linear(3, 2, dtype=torch.float64)
twin = torch.nn.Linear(3, 2, dtype=torch.float64)
twin.load_state_dict(learner.state_dict())
loss_of = torch.nn.functional.cross_entropy
manager = DistributedManager()
seen = []

def step(model, batch):
    seen.append(batch)
    return loss_of(model(batch[0]), batch[1])

driver = Driver(
    c.DriverConfig(4, max_active_learning_steps=1, seed=2, dtype=torch.float64, dist_manager=manager),
    learner, c.StrategiesConfig([], queue.Queue),
    c.TrainingConfig(data(), 3, optimizer_config=c.OptimizerConfig(torch.optim.SGD, {"lr": 0.5})),
)
driver.run(step)
everywhere = driver.ranks.gather(seen)
optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
for batches in zip(*everywhere, strict=True):
    optimizer.zero_grad()
    (sum(loss_of(twin(x), y) for x, y in batches) / len(batches)).backward()
    optimizer.step()
for one, other in zip(learner.parameters(), twin.parameters()):
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
epoch = len(seen) // 3
rows = [torch.cat([batch[0] for batch in mine[:epoch]]) for mine in everywhere]
assert len({len(share) for share in rows}) == 1, "ranks got shares of different size"
whole = torch.cat(rows).unique(dim=0)
assert len(whole) == 26, "not every labeled sample was trained on"
assert len({str(mine[0]) for mine in everywhere}) == manager.world_size, "two ranks trained on the same batch"
assert str(seen[0]) != str(seen[epoch]), "the second epoch had the order of the first"
"""
