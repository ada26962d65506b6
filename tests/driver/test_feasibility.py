"""What failed as infeasible is learned from: fewer requests fail, and the step's record says what is known."""

import queue

import pytest
import torch
from alcore_random import RandomQuery
from alcore_regression import GSxQuery

from alcore import BaseLabel, BaseMetrology, Driver, Failed, Label, PointwiseQuery, TensorPool, UsageError, runhook
from alcore import config as c
from alcore.inference import top_k
from alcore.store import Run

POINTS = torch.rand(120, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
FAILS = POINTS[:, 0] > 0
LABELED = [sample for sample in range(120) if not FAILS[sample]][:6]


class Simulator(BaseLabel):
    """It has no answer in one half of the space."""

    def label(self, queue_to_label, serialize_queue):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            if FAILS[request.item]:
                serialize_queue.put(Failed(request, "diverged", kind="infeasible"))
            else:
                serialize_queue.put(Label(request, float(POINTS[request.item].sum())))


class RightmostQuery(PointwiseQuery):
    """Asks for the points with the largest first coordinate, all of which fail."""

    def score(self, outputs):
        return outputs[:, 0] + 5

    def infer(self, inputs):
        return inputs


class Counting(BaseMetrology):
    """Counts candidates where no query strategy chooses."""

    def compute(self):
        self.append_record(candidates=sum(map(len, self.driver.candidates())))


class Told:
    def __init__(self):
        self.records = []

    @runhook
    def alcore_step_end(self, record):
        self.records.append(record)


def make(query, mode, folder, *, steps=6, points=POINTS, metrology=(), plugins=(), run_id=None, label=None):
    pool = TensorPool(points, points.sum(dim=1), labeled=LABELED)
    return Driver(
        c.DriverConfig(
            batch_size=32, max_active_learning_steps=steps, root_log_dir=folder, device="cpu", seed=0, feasibility=mode,
            skip_training=True, run_id=run_id,
        ),
        torch.nn.Linear(2, 1),
        c.StrategiesConfig([query], queue.Queue, label or Simulator(), list(metrology)),
        c.TrainingConfig(pool, max_training_epochs=0),
        plugins=plugins,
    )  # fmt: skip


def failures(query, mode, folder):
    told = Told()
    make(query, mode, folder, plugins=[told]).run()
    return sum(record["failed"] for record in told.records), told.records


@pytest.mark.parametrize("mode", ["weight", "exclude"])
@pytest.mark.parametrize("query", [GSxQuery, RightmostQuery])
def test_fewer_requests_fail(query, mode, tmp_path):
    wasted, records = failures(query(5), "off", tmp_path / "off")
    assert not any("feasibility" in record for record in records)
    learned, records = failures(query(5), mode, tmp_path / "on")
    assert learned < 0.75 * wasted
    assert "feasibility" not in records[0]
    tallies = [record["feasibility"] for record in records[1:]]
    failed = [record["failed"] for record in records]
    assert [counts["infeasible"] for counts in tallies] == [sum(failed[:step]) for step in range(1, 6)]
    assert [counts["candidates"] for counts in tallies] == [114 - 5 * step for step in range(1, 6)]
    assert 20 < tallies[-1]["unlikely"] < 80


def test_any_strategy_is_kept_from_excluded_candidates(tmp_path):
    wasted, _ = failures(RandomQuery(5), "off", tmp_path / "off")
    weighted, _ = failures(RandomQuery(5), "weight", tmp_path / "weight")
    learned, _ = failures(RandomQuery(5), "exclude", tmp_path / "exclude")
    assert weighted == wasted
    assert learned < wasted


def test_candidates_are_left_out_of_the_query_phase_alone(tmp_path):
    metrology = Counting()
    make(GSxQuery(5), "exclude", tmp_path, metrology=[metrology]).run()
    assert [record["candidates"] for record in metrology.records] == [114 - 5 * step for step in range(6)]


def test_resumed_run_equals_one_that_was_not_interrupted(tmp_path):
    class Cut(Simulator):  # in step 3
        def label(self, queue_to_label, serialize_queue):
            if self.driver.active_learning_step_idx == 3:
                raise KeyboardInterrupt
            super().label(queue_to_label, serialize_queue)

    whole = make(RightmostQuery(5), "weight", tmp_path, run_id="whole")
    whole.run()
    cut = make(RightmostQuery(5), "weight", tmp_path, run_id="cut", label=Cut())
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = make(RightmostQuery(5), "weight", tmp_path, run_id="cut")
    again.restore()
    again.run()
    asked = [
        [(request["step"], request["sample"], request["score"]) for request in Run(driver.log_dir).requests()]
        for driver in (whole, again)
    ]
    assert asked[0] == asked[1]


def test_where_all_candidates_look_infeasible_none_is_left_out(tmp_path, caplog):
    points = POINTS.clone()
    points[FAILS] = torch.tensor([1.0, 0.0])
    for sample in range(120):
        if not FAILS[sample] and sample not in LABELED:
            points[sample] = torch.tensor([1.0, 0.0])  # like those that failed
    told = Told()
    make(GSxQuery(5), "exclude", tmp_path, steps=8, points=points, plugins=[told]).run()
    assert [record["requested"] for record in told.records] == [5] * 8
    full = [record["feasibility"] for record in told.records if "feasibility" in record]
    assert any(counts["unlikely"] == counts["candidates"] for counts in full)
    assert "candidates are likely to be infeasible" in caplog.text


def test_scores_are_those_that_were_weighted(tmp_path):
    driver = make(RightmostQuery(5), "weight", tmp_path)
    ids = torch.arange(120)[~torch.isin(torch.arange(120), torch.tensor(LABELED))]
    failed = ids[FAILS[ids]][:8].tolist()
    labeled_inputs = [POINTS[LABELED]]
    assert driver.feasibility.learn(driver.choice_pool, labeled_inputs, failed, driver.candidates())["infeasible"] == 8
    best = top_k(driver, lambda outputs: outputs[:, 0] + 5, 3, lambda inputs: inputs)
    expected = (POINTS[ids, 0].double() + 5) * driver.feasibility.weights(ids).double()
    assert best.scores.tolist() == pytest.approx(expected.sort(descending=True).values[:3].tolist(), rel=1e-6)
    driver.feasibility.forget()
    assert driver.feasibility.weights(ids) is None


def test_wrong_mode_is_refused():
    with pytest.raises(UsageError, match="feasibility is 'drop'; it must be 'off', 'weight' or 'exclude'"):
        c.DriverConfig(batch_size=1, feasibility="drop")


def test_failed_samples_whose_inputs_are_no_numbers_are_not_learned_from(tmp_path):
    points = POINTS.clone()
    failed = [sample for sample in range(120) if FAILS[sample]][:8]
    points[failed[0], 1] = float("nan")
    driver = make(RandomQuery(5), "exclude", tmp_path, points=points)
    estimate = driver.feasibility.learn(driver.choice_pool, [points[LABELED]], failed, driver.candidates())
    assert 0 < estimate["unlikely"] < estimate["candidates"]
    assert 0 < sum(map(len, driver.candidates())) < estimate["candidates"]
    driver.feasibility.forget()
    only = driver.feasibility.learn(driver.choice_pool, [points[LABELED]], failed[:1], driver.candidates())
    assert only is None


def test_generated_inputs_that_failed_are_learned_from_as_samples_are(tmp_path):
    driver = make(RandomQuery(5), "weight", tmp_path)
    ids = torch.cat(list(driver.candidates()))
    failed = ids[FAILS[ids]][:8].tolist()
    probabilities = []
    for infeasible in (failed, [POINTS[sample] for sample in failed], [*failed[:3], *POINTS[failed[3:]].numpy()]):
        estimate = driver.feasibility.learn(driver.choice_pool, [POINTS[LABELED]], infeasible, driver.candidates())
        assert estimate["infeasible"] == 8
        probabilities.append(driver.feasibility.weights(ids))
        driver.feasibility.forget()
    assert torch.equal(probabilities[1], probabilities[0])
    assert torch.allclose(probabilities[2], probabilities[0])


@pytest.mark.parametrize("mode", ["weight", "exclude"])
def test_points_of_another_pool_are_as_likely_as_candidates_with_their_inputs(mode, tmp_path):
    driver = make(RandomQuery(5), mode, tmp_path)
    ids = torch.cat(list(driver.candidates()))
    other = TensorPool(POINTS[ids], torch.zeros(len(ids)))
    places = torch.arange(len(ids))
    nothing = driver.feasibility.over(other)
    assert nothing.weights(places) is None
    assert torch.equal(nothing.offered(places), places)
    failed = ids[FAILS[ids]][:8].tolist()
    driver.feasibility.learn(driver.choice_pool, [POINTS[LABELED]], failed, iter([ids]))
    known, over = driver.feasibility, driver.feasibility.over(other)
    assert (known.weights(ids) is None) is (mode == "exclude")
    if mode == "weight":
        assert torch.allclose(over.weights(places), known.weights(ids))
    for name in ("kept", "offered"):
        assert torch.equal(ids[getattr(over, name)(places)], getattr(known, name)(ids)), name
    assert len(over.kept(places)) < len(places)
    assert over.kept(places[:0]).tolist() == []
