"""The contract of pools."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from alcore import BaseLabel, Data, DataInfo, DataPool, Driver, Label, Phase
from alcore.pools import is_choosable, offers_parts, pool_digest, tensors_of, unlabeled_ids
from alcore_testing.contract import Contract, requires
from alcore_testing.drivers import assert_same_run, build_driver, whole_and_resumed
from alcore_testing.plain import same
from alcore_testing.toys import toy_loop, toy_loss
from alcore_testing.watch import Unwritten, untouched


class PoolContract(Contract):
    """What every pool promises; one that samples are chosen from promises more (`choosable`).

    Override ``make()``: a fresh pool, always the same one, with at least 2 labeled and 6 unlabeled samples. Say what
    is claimed: `choosable`, `augments`; and for a plugin of data `name` and `required_parameters`. For such a plugin
    override ``data()`` too: what its factory returns. ``make()`` returns the training pool of that by default.

    Examples
    --------
    >>> class TestMyPool(PoolContract):
    ...     def make(self):
    ...         return MyPool("measurements.h5")
    """

    kind = "data"

    choosable: ClassVar[bool] = True
    """It lists its unlabeled samples, and gives their inputs."""
    augments: ClassVar[bool] = False
    """Labeled items are not the same each time."""

    def make(self, *args: Any, **parameters: Any) -> Any:
        """Return a fresh pool, always the same one."""
        return self.data().train

    def data(self) -> Data:
        """Return what the factory of the plugin returns."""
        raise NotImplementedError(f"{type(self).__name__} must define make() -> a pool, and with a name data() -> Data")

    def label(self, pool: Any, sample: int) -> Any:
        """Return what a label strategy would deliver for a sample: its id, or a `Label` where no answer is known."""
        return sample if getattr(pool, "knows_answers", True) else Label(sample, 0)

    def learner(self, pool: Any) -> Any:
        """Return a learner for the runs on this pool."""
        info = pool.info
        features = info.features or math.prod(info.shape)
        outputs = info.classes if info.classes > 2 else 1
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(features, outputs))

    def test_pool_has_the_methods_of_its_protocols(self) -> None:
        """It has the methods of its protocols, and says what its data is."""
        pool = self.make()
        assert isinstance(pool, DataPool), "a pool has __len__, __getitem__ and append"
        assert is_choosable(pool) == self.choosable, "a pool to choose from has unlabeled_indices and inputs"
        assert isinstance(getattr(pool, "info", DataInfo()), DataInfo)
        assert len(pool) >= 2

    @requires("name")
    def test_data_says_what_its_samples_are(self) -> None:
        """Its `Data` has the task, the classes, and the features or the shape of an input, as the pool has them.

        Learners are made by that. Where ``Data.info`` isn't given, it is that of the pool.
        """
        data = self.data()
        assert isinstance(data, Data), f"a data factory returns alcore.Data, not a {type(data).__name__}"
        info, pool = data.info, data.train
        assert isinstance(info, DataInfo), f"Data.info is an alcore.DataInfo, not a {type(info).__name__}"
        assert info != DataInfo(), (
            "neither Data.info nor the pool says what the samples are, so that no learner can be made for them: return "
            "Data(pool, info=DataInfo(task, classes, features, shape))"
        )
        assert (info.task == "regression") == (info.classes == 0), f"{info.classes} classes in a {info.task}"
        assert info.task == "regression" or info.classes >= 2, f"{info.classes} classes in a {info.task}"
        choice = data.unlabeled if data.unlabeled is not None else pool
        batch = tensors_of(choice.inputs(_ids(choice)[:1]) if is_choosable(choice) else pool[0][0])
        if len(batch) == 1:
            shape = tuple(batch[0].shape[1:] if is_choosable(choice) else batch[0].shape)
            said = tuple(info.shape) or (info.features,)
            assert said == shape, f"Data.info says that an input has the shape {said}, and it has {shape}"
        own = getattr(pool, "info", None)
        for name in ("task", "classes", "features", "shape") if isinstance(own, DataInfo) else ():
            mine, other = getattr(info, name), getattr(own, name)
            assert mine == other, f"{name} is {mine!r} in Data.info, and {other!r} in the info of the pool"

    def test_pool_made_twice_is_equal(self) -> None:
        """A resumed run makes the pool anew and must find the same samples: digest, length, items."""
        one, other = self.make(), self.make()
        assert pool_digest(one) == pool_digest(other)
        assert len(one) == len(other)
        if not self.augments:
            assert all(same(_plain(one[place]), _plain(other[place])) for place in range(len(one)))

    @requires("choosable")
    def test_appended_sample_is_labeled(self) -> None:
        """An appended sample is the last of the labeled ones, no longer unlabeled, and known to the digest."""
        pool = self.make()
        digest, count, ids = pool_digest(pool), len(pool), _ids(pool)
        for done, sample in enumerate(ids[[3, 0, 5]].tolist(), 1):
            pool.append(self.label(pool, sample))
            assert len(pool) == count + done
            ids = ids[ids != sample]
            assert torch.equal(_ids(pool), ids)
            if not self.augments:
                last = tensors_of(pool[len(pool) - 1])[0]
                assert torch.equal(last, tensors_of(pool.inputs(torch.tensor([sample])))[0][0])
        assert pool_digest(pool) != digest

    @requires("choosable")
    def test_refused_append_changes_nothing(self) -> None:
        """A sample that is labeled already, or doesn't exist, is an error and leaves the pool as it was."""
        pool = self.make()
        sample = int(_ids(pool)[0])
        pool.append(self.label(pool, sample))
        digest = pool_digest(pool)
        for wrong in (sample, 10**9, -1):
            with pytest.raises(Exception, match=str(wrong)):
                pool.append(self.label(pool, wrong))
        assert pool_digest(pool) == digest

    @requires("choosable")
    def test_unlabeled_ids_ascend(self) -> None:
        """``unlabeled_indices()`` gives int64 ids in ascending order, each once."""
        pool = self.make()
        ids = pool.unlabeled_indices(0, pool.total) if _lists_windows(pool) else pool.unlabeled_indices()
        assert ids.dtype == torch.int64
        assert ids.dim() == 1
        assert len(ids) >= 6
        assert bool((ids[1:] > ids[:-1]).all())

    @requires("choosable")
    def test_windows_hold_all_unlabeled_ids(self) -> None:
        """If it takes ``unlabeled_indices(start, stop)`` and has ``total``, windows hold what the whole list does."""
        pool = self.make()
        if not _lists_windows(pool):
            return
        ids = pool.unlabeled_indices(0, pool.total)
        assert bool((ids < pool.total).all())
        for size in (1, 3, pool.total + 5):
            parts = [pool.unlabeled_indices(start, start + size) for start in range(0, pool.total, size)]
            assert torch.equal(torch.cat(parts), ids), f"windows of {size}"

    @requires("choosable")
    def test_inputs_are_one_row_an_id(self) -> None:
        """``inputs(ids)`` gives one row an id, in the order of the ids, the same whatever else is asked for."""
        pool = self.make()
        ids = _ids(pool)[[4, 1, 1, 0]]
        together = tensors_of(pool.inputs(ids))
        for place, sample in enumerate(ids):
            alone = tensors_of(pool.inputs(sample[None]))
            assert [len(tensor) for tensor in alone] == [1] * len(together)
            assert all(torch.equal(one[place], lone[0]) for one, lone in zip(together, alone, strict=True))
        assert all(len(tensor) == 0 for tensor in tensors_of(pool.inputs(ids[:0]))), "no ids, no rows"

    @requires("choosable")
    def test_inputs_are_copies_and_never_augmented(self) -> None:
        """Twice the same inputs come back, though someone wrote to the first; generators stay as they were."""
        pool = self.make()
        ids = _ids(pool)[:5]
        with untouched():
            first = tensors_of(pool.inputs(ids))
            kept = [tensor.clone() for tensor in first]
            for tensor in first:
                tensor.zero_()
            again = tensors_of(pool.inputs(ids))
        assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))

    @requires("choosable")
    def test_what_it_is_given_is_not_written_to(self) -> None:
        """Ids, positions and appended items come back to the bit."""
        pool, unwritten = self.make(), Unwritten()
        ids = unwritten.given("ids", _ids(pool)[[4, 1, 0]].clone())
        pool.inputs(ids)
        if callable(getattr(pool, "batch", None)):
            pool.batch(unwritten.given("positions", torch.tensor([1, 0, 1])))
        item = self.label(pool, int(ids[0]))
        unwritten.given("appended item", item.value if isinstance(item, Label) else item)
        pool.append(item)
        unwritten.check()

    def test_batch_equals_items(self) -> None:
        """If it has ``batch(positions)``, that gives the items at these positions, in their order."""
        pool = self.make()
        if not callable(getattr(pool, "batch", None)) or self.augments:
            return
        positions = torch.tensor([1, 0, 1])
        together = tensors_of(pool.batch(positions))
        for place, position in enumerate(positions.tolist()):
            alone = tensors_of(pool[position])
            assert all(torch.equal(one[place], lone) for one, lone in zip(together, alone, strict=True))

    @requires("choosable")
    def test_plain_items_are_the_labeled_ones_without_augmentation(self) -> None:
        """If it has ``plain``, that holds the inputs that ``inputs(ids)`` gives, in training order."""
        pool = self.make()
        if not hasattr(pool, "plain"):
            return
        pool.append(self.label(pool, int(_ids(pool)[2])))
        assert len(pool.plain) == len(pool)
        for place, sample in enumerate(pool.labeled_ids):
            with untouched():
                item = pool.plain[place]
            expected = tensors_of(pool.inputs(sample[None]))
            assert all(torch.equal(one, rows[0]) for one, rows in zip(tensors_of(item[0]), expected, strict=True))

    @requires("choosable")
    def test_step_offers_a_part_of_its_ids(self) -> None:
        """If it has ``step_range(step)``, that gives ``(start, stop)`` within its ids, the same for the same step."""
        pool = self.make()
        if not offers_parts(pool):
            return
        for step in (0, 1, 7):
            given = pool.step_range(step)
            assert isinstance(given, tuple), f"step_range({step}) is a {type(given).__name__}, not a tuple"
            assert [type(bound) for bound in given] == [int, int], f"step_range({step}) is {given!r}, not two integers"
            start, stop = given
            assert 0 <= start <= stop <= pool.total, f"step_range({step}) is {given}, of {pool.total} samples"
            pool.append(self.label(pool, int(_ids(pool)[0])))
            assert {pool.step_range(step), self.make().step_range(step)} == {given}, f"step {step} has several ranges"

    @requires("choosable")
    def test_costs_of_many_are_those_of_each(self) -> None:
        """If it has ``costs_of(samples)``, that gives what ``cost(sample)`` gives for each; a cost is not negative."""
        pool = self.make()
        ids = _ids(pool)[[4, 1, 0]]
        each = [None if not callable(getattr(pool, "cost", None)) else pool.cost(sample) for sample in ids.tolist()]
        assert all(cost is None or 0 <= cost < math.inf for cost in each), f"costs are {each}"
        if not callable(getattr(pool, "costs_of", None)):
            return
        together = pool.costs_of(ids)
        if together is None:
            assert each == [None] * 3, f"cost() gives {each}, and costs_of() None"
            return
        assert (together.dtype, together.shape) == (torch.float64, (3,)), f"{together.dtype}, {tuple(together.shape)}"
        assert together.tolist() == each, f"cost() gives {each}, and costs_of() {together.tolist()}"

    def generated(self, pool: Any) -> list[Any]:
        """Return inputs that a query strategy might generate for this pool; override it where the pool takes some.

        By default none.
        """
        del pool
        return []

    @requires("choosable")
    def test_generated_inputs_are_like_its_own(self) -> None:
        """What `generated` returns is right, has the form of its inputs, and what is said of it can be used."""
        pool = self.make()
        own = tensors_of(pool.inputs(_ids(pool)[:1]))
        for item in self.generated(pool):
            fault = pool.check_input(item) if callable(getattr(pool, "check_input", None)) else None
            assert fault is None, f"{item!r}: {fault}"
            made = tensors_of(pool.as_input(item) if callable(getattr(pool, "as_input", None)) else item)
            shapes = [tuple(row.shape) for row in made], [tuple(rows.shape[1:]) for rows in own]
            assert shapes[0] == shapes[1], (
                f"as an input it has the shapes {shapes[0]}, and those of the pool {shapes[1]}"
            )
            cost = pool.input_cost(item) if callable(getattr(pool, "input_cost", None)) else None
            assert cost is None or 0 <= cost < math.inf, f"input_cost() is {cost}"
            fidelity = pool.input_fidelity(item) if callable(getattr(pool, "input_fidelity", None)) else None
            assert json.loads(json.dumps(fidelity)) == fidelity, f"input_fidelity() is {fidelity!r}, which is not JSON"

    def test_evaluation_has_a_target_for_each_input(self) -> None:
        """If it has ``evaluation()``, that gives as many targets as inputs."""
        pool = self.make()
        if callable(getattr(pool, "evaluation", None)):
            inputs, targets = pool.evaluation()
            assert len(tensors_of(inputs)[0]) == len(targets) > 0

    @requires("choosable")
    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path) -> None:
        """A run on it that was interrupted and resumed ends as one that was not, and with the same pool."""

        def build(folder: Path, **settings: Any) -> Driver:
            pool = self.make()
            parts = {"pool": pool, "learner": self.learner(pool), "label": _Delivers(self)}
            return build_driver(folder, loop=toy_loop, max_active_learning_steps=2, **parts, **settings)

        whole, resumed = whole_and_resumed(build, tmp_path, 1, Phase.LABELING, toy_loss)
        assert_same_run(resumed, whole)
        assert pool_digest(resumed.train_datapool) == pool_digest(whole.train_datapool)


class _Delivers(BaseLabel):
    """Answers as the contract says that the pool wants it."""

    idempotent = True

    def __init__(self, contract: PoolContract) -> None:
        self._contract = contract

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Answer every request."""
        while not queue_to_label.empty():
            serialize_queue.put(self._contract.label(self.driver.train_datapool, queue_to_label.get()))


def _lists_windows(pool: Any) -> bool:
    return hasattr(pool, "total") and len(inspect.signature(pool.unlabeled_indices).parameters) >= 2


def _ids(pool: Any) -> torch.Tensor:
    """Return the unlabeled ids of a pool, which may list them in windows alone."""
    return torch.cat(list(unlabeled_ids(pool)))


def _plain(item: Any) -> Any:
    """Return an item as data that can be compared."""
    return tuple(tensors_of(item)) if tensors_of(item) else item
