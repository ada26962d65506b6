"""Large values of labels lie in files of their own, which are whole before the database names them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alcore.codec import dumps
from alcore.errors import UsageError
from alcore.protocols import Request
from alcore.store.database import Opened, Source
from alcore.store.files import StorageError
from alcore.store.fork import fork_run
from alcore.store.labels import Labels
from alcore.store.reading import Run
from alcore.store.replica import Replica
from alcore.store.rows import AcceptedLabel, AskedRequest, request_id
from alcore.store.run import RunStore
from alcore.store.transfer import Transfer
from alcore.store.values import LARGE, LabelValues

FIELD = torch.arange(16641.0, dtype=torch.float64)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    run = RunStore.create(tmp_path / "root", "r1", meta={"status": "running"}, experiment="", state={})
    yield run
    run.close()


def put(store: RunStore, *values: Any, step: int = 0) -> list[Request]:
    """Ask for labels and deliver them."""
    requests = [Request(request_id("r1", step, place), step, place, 10 * step + place) for place in range(len(values))]
    asked = [AskedRequest(one, one.item, "uq", None, place, 1.0) for place, one in enumerate(requests)]
    store.commit_query(step, asked, [], "model")
    with store.answering(step) as writer:
        for request, value in zip(requests, values, strict=True):
            writer.accept(request, AcceptedLabel(request, None, "label", "", dumps(value), 1.0))
    return requests


def names(store: RunStore) -> list[str]:
    folder = store.folder / "labels"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    "value",
    [FIELD, FIELD.numpy(), "x" * (LARGE + 1), {"a": (FIELD, FIELD[:2]), 3: [1.5] * 30000}, list(range(20000))],
    ids=["tensor", "array", "text", "nested", "list"],
)
def test_large_value_comes_back_as_it_was(store: RunStore, value: Any) -> None:
    put(store, value, 7)
    assert len(names(store)) == 1
    (large, small) = store.labels.accepted(0)
    assert (large.value, small.value) == (dumps(value), "7")
    rows = Run(store.folder).requests()
    assert [(row["value"], row["file"] and f"{row['file']}.safetensors") for row in rows] == [
        (None, names(store)[0]), ("7", None),
    ]  # fmt: skip
    assert [Run(store.folder).label_text(row) for row in rows] == [dumps(value), "7"]
    assert len((store.folder / "run.db").read_bytes()) < 2 * LARGE + 60_000


def test_file_holds_little_more_than_the_numbers(store: RunStore) -> None:
    put(store, FIELD)
    (path,) = (store.folder / "labels").iterdir()
    assert path.stat().st_size < 1.02 * 8 * len(FIELD)


def test_equal_values_share_a_file(store: RunStore) -> None:
    put(store, FIELD, FIELD.clone(), FIELD + 1)
    assert len(names(store)) == 2


def test_value_of_just_the_limit_stays_in_the_database(store: RunStore) -> None:
    put(store, "x" * (LARGE - 2))
    assert names(store) == []


def test_failed_transaction_leaves_a_file_that_the_next_opening_removes(store: RunStore) -> None:
    (request,) = put(store, FIELD)
    kept = names(store)
    with pytest.raises(ZeroDivisionError), store.answering(0) as writer:  # noqa: PT012
        answer = AcceptedLabel(request, None, "label", "", dumps(FIELD + 1), 1.0)
        writer.accept(request, answer, corrects=True)
        raise ZeroDivisionError
    (store.folder / "labels" / ".value.0a1b2c3d.part").write_text("half")
    assert len(names(store)) == 3
    store.close()
    RunStore.open(store.folder.parent, "r1").close()
    assert names(store) == kept


def test_full_disk_is_told_and_nothing_is_committed(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alcore.store.values.fsync_path", fail)
    with pytest.raises(StorageError, match="No space left"):
        put(store, FIELD)
    assert store.labels.accepted(0) == []


@pytest.mark.parametrize("how", ["missing", "damaged", "link"])
def test_missing_and_damaged_files_are_named(store: RunStore, tmp_path: Path, how: str) -> None:
    put(store, FIELD)
    (path,) = (store.folder / "labels").iterdir()
    content = path.read_bytes()
    path.unlink()
    if how == "damaged":
        path.write_bytes(content[:-1] + b"x")
    elif how == "link":
        (tmp_path / "mine").write_bytes(content)
        path.symlink_to(tmp_path / "mine")
    reader = Run(store.folder)
    for act in (lambda: store.labels.accepted(0), lambda: reader.label_text(reader.requests()[0])):
        with pytest.raises(UsageError, match=path.name):
            act()
    store.commit_step(0, {"step": 0}, {}, [], None)
    with pytest.raises(UsageError, match=path.name):
        fork_run(Run(store.folder), 0)


READERS: list[Callable[[Source, LabelValues], Any]] = [
    lambda source, values: Labels(source, values).labeling(0),
    lambda source, values: Labels(source, values).accepted(0),
    lambda source, values: Transfer(source, values).label_changes(0),
    lambda source, values: Transfer(source, values).image(),
]


@pytest.mark.parametrize("query", READERS)
def test_value_that_cannot_be_read_leaves_the_database_free_for_others(store: RunStore, query: Any) -> None:
    """An unfinished statement would keep its lock for as long as somebody holds the error."""
    put(store, FIELD, FIELD + 1, FIELD + 2)
    store.close()

    class Unreadable(LabelValues):
        def read(self, sha256: str) -> str:
            raise StorageError(sha256)

    held = []
    with contextlib.closing(sqlite3.connect(store.folder / "run.db", isolation_level=None)) as reader:
        reader.row_factory = sqlite3.Row
        reader.execute("BEGIN")
        with pytest.raises(StorageError) as caught:
            query(Opened(reader), Unreadable(store.folder / "labels"))
        held.append(caught.value)
        reader.execute("ROLLBACK")
        with contextlib.closing(sqlite3.connect(store.folder / "run.db", isolation_level=None, timeout=0)) as writer:
            writer.execute("BEGIN EXCLUSIVE")


@pytest.mark.parametrize("name", ["../mine", "a" * 63, "A" * 64, ""])
def test_name_that_is_no_digest_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="must be a SHA-256"):
        LabelValues(tmp_path / "labels").path(name)


def test_fork_has_its_own_files_of_the_steps_that_it_keeps(store: RunStore) -> None:
    for step in range(2):
        put(store, FIELD + step, step=step)
        store.commit_step(step, {"step": step}, {}, [], None)
    made = fork_run(Run(store.folder), 0)
    (copied,) = (made.folder / "labels").iterdir()
    assert copied.stat().st_nlink == 1
    assert Run(made.folder).label_text(Run(made.folder).requests()[0]) == dumps(FIELD)


def test_other_ranks_get_the_values_with_the_tables(store: RunStore) -> None:
    """A rank on another machine can't read the files."""
    put(store, FIELD)
    replica = Replica(store.transfer.image())
    assert [answer.value for answer in replica.labels.accepted(0)] == [dumps(FIELD)]
    asked = put_alike(store, replica)
    with store.answering(1) as writer:
        writer.accept(asked, AcceptedLabel(asked, None, "label", "", dumps(FIELD + 1), 1.0))
    replica.apply_label_changes(store.transfer.label_changes(1))
    assert [answer.value for answer in replica.labels.accepted(1)] == [dumps(FIELD + 1)]
    assert replica.transfer.label_rows(1) == store.transfer.label_rows(1)
    assert not (replica.folder / "labels").exists()
    replica.close()


def put_alike(*stores: RunStore) -> Request:
    """Ask for the same on all ranks."""
    request = Request(request_id("r1", 1, 0), 1, 0, 99)
    for store in stores:
        store.commit_query(1, [AskedRequest(request, 99, "uq", None, 0, 1.0)], [], "model")
    return request


def test_run_with_large_labels_is_trained_exported_and_resumed(build: Callable[..., Any], tmp_path: Path) -> None:
    from alcore_predict import export_run

    from alcore import Label, TensorPool
    from alcore.strategies import BaseLabel

    class Fields(TensorPool):
        """Targets are fields; what is trained on is their first number."""

        def check(self, value: Any) -> str | None:
            return None if isinstance(value, int) or value.shape == (16641,) else "it is no field"

        def append(self, item: Any) -> None:
            super().append(Label(item.item, int(item.value[0]) % 2))

    class Simulation(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                request = queue_to_label.get_request()
                serialize_queue.put(Label(request, FIELD + request.item))

    def driver(steps: int) -> Any:
        pool = Fields(
            torch.randn(40, 2, generator=torch.Generator().manual_seed(3)), torch.arange(40) % 2, labeled=range(8)
        )
        return build(
            run_id="r", max_active_learning_steps=steps, label_strategy=Simulation(), train_datapool=pool,
            metrology_strategies=None,
        )  # fmt: skip

    first = driver(2)
    first.run()
    again = driver(3)
    again.restore()
    assert len(again.train_datapool) == 8 + 6
    again.run()
    assert len(list((again.log_dir / "labels").iterdir())) == 9
    export_run(Run(again.log_dir), tmp_path / "out")
    assert '""file"": ""values.npz""' in (tmp_path / "out" / "labels.csv").read_text()
    exported = np.load(tmp_path / "out" / "values.npz")
    assert len(exported) == 9
    assert 16640.0 + 8 in [float(exported[name].max()) for name in exported]
