"""Dates and grouped thousands become numbers; what can be read in two ways is refused."""

from __future__ import annotations

import datetime
import json
import math

import pytest
import torch
from alcore_tabular import table
from alcore_tabular.standalone import date, date_part, grouped_number

from alcore.errors import UsageError

NEW_YEAR = datetime.datetime(2024, 2, 1)


@pytest.mark.parametrize(
    "cell",
    ["2024-02-01", "2024/2/1", "01.02.2024", "1/2/2024", "01-02-2024", "1 Feb 2024", "1-February-2024", "Feb. 1, 2024"],
)
def test_common_forms_of_a_day_are_read(cell) -> None:
    assert date(cell, "dmy") == NEW_YEAR
    if cell.count("/") == 2 and not cell.startswith("2024"):
        assert date(cell, "mdy") == datetime.datetime(2024, 1, 2)


@pytest.mark.parametrize(
    ("cell", "hours"),
    [
        ("2024-02-01T06:30", 6.5),
        ("2024-02-01 06:30:00.0", 6.5),
        ("01.02.2024, 6:30", 6.5),
        ("2024-02-01T06:30:00Z", 6.5),
        ("2024-02-01T08:30:00+02:00", 6.5),
        ("2024-02-01T01:00:00-0530", 6.5),
    ],
)
def test_times_of_day_are_read_and_zones_become_utc(cell, hours) -> None:
    assert date(cell, "dmy") == NEW_YEAR + datetime.timedelta(hours=hours)


@pytest.mark.parametrize("cell", ["2024-13-01", "30.02.2024", "2024-02/01", "1 Fob 2024", "12", "1/2/24", "2024", ""])
def test_other_cells_are_no_dates(cell) -> None:
    assert date(cell, "dmy") is None


def test_parts_of_a_date_are_days_and_places_on_circles() -> None:
    assert date_part(datetime.datetime(1970, 1, 2, 12), "day") == 1.5
    assert date_part(datetime.datetime(1970, 1, 2, 6), "time sine") == pytest.approx(1)
    assert date_part(datetime.datetime(2024, 1, 1), "season cosine") == 1
    assert date_part(datetime.datetime(2024, 1, 2), "weekday sine") == pytest.approx(math.sin(2 * math.pi / 7))


def with_column(rows, name, cell):
    return [[cell(place) if place else name, *row] for place, row in enumerate(rows)]


def read_again(data, path) -> torch.Tensor:
    """Return the inputs of the training part, made of a description that was written as JSON."""
    made = table.preprocessing_from(json.loads(json.dumps(data.preprocessing.describe())))
    return made.read(path)[data.train.source_rows]


@pytest.mark.parametrize(
    ("form", "features"), [("%Y-%m-%d", 5), ("%d/%m/%Y", 5), ("%d %b %Y", 5), ("%Y-%m-%dT%H:%M", 7)], ids=str
)
def test_dates_become_numbers_which_a_new_file_gets_too(rows, write, form, features) -> None:
    start = datetime.datetime(2023, 1, 15, 8)
    path = write(with_column(rows, "sold", lambda place: (start + datetime.timedelta(9.3 * place)).strftime(form)))
    data = table(path, target="bought")
    assert data.info.features == 4 + features
    assert torch.equal(read_again(data, path), data.train.inputs(torch.arange(data.train.total)))
    days = data.train.inputs(torch.arange(data.train.total))[:, 0]
    assert torch.equal(days, days.sort().values), "rows are in the order of their dates"


def test_day_and_month_that_can_not_be_told_apart_are_refused_until_the_user_says(rows, write) -> None:
    path = write(with_column(rows, "sold", lambda place: f"{place % 12 + 1}/{place % 11 + 1}/2024"))
    with pytest.raises(UsageError, match=r"'sold' has dates.*line 12 has '12/1/2024'.*date_order=dmy or"):
        table(path, target="bought")
    first, second = (table(path, target="bought", date_order=order) for order in ("dmy", "mdy"))
    assert first.train.digest() != second.train.digest()


@pytest.mark.parametrize(
    ("cell", "mark", "value"),
    [
        ("1,204.50", ".", 1204.5),
        ("-12,204", ".", -12204.0),
        ("1,234,567", ".", 1234567.0),
        ("950", ".", 950.0),
        ("1.204,50", ",", 1204.5),
        ("0,204", ".", None),
        ("1,2045", ".", None),
        ("12,34.5", ".", None),
    ],
)
def test_grouped_thousands_are_read(cell, mark, value) -> None:
    assert grouped_number(cell, mark) == value


def test_grouped_numbers_are_features_and_targets(rows, write) -> None:
    table_rows = with_column(rows, "price", lambda place: f"{place * 100.25:,.2f}")
    path = write(table_rows)
    data = table(path, target="bought")
    assert data.info.features == 5
    assert torch.equal(read_again(data, path), data.train.inputs(torch.arange(data.train.total)))
    targets = table(path, target="price")
    assert targets.info.task == "regression"
    assert max(target.item() for target in (targets.train.answer(sample)[1] for sample in range(30))) > 1000


def test_three_digits_after_a_comma_are_refused_until_the_user_says(rows, write) -> None:
    path = write(with_column(rows, "price", lambda place: f"{place},{place + 100}"))
    refused = r"'price' has numbers such as '1,101'.*thousands=true"
    with pytest.raises(UsageError, match=f"{refused}.*correct such") as caught:
        table(path, target="bought")
    assert "decimal=" not in str(caught.value), "the other numbers have points"
    assert table(path, target="bought", thousands=True).info.features == 5
    path = write([row[:1] + row[2:] for row in with_column(rows, "price", lambda place: f"{place},{place + 100}")])
    with pytest.raises(UsageError, match=f"{refused}.*decimal="):
        table(path, target="bought")


def test_a_target_with_three_digits_after_a_comma_is_refused_until_the_user_says(rows, write) -> None:
    path = write(with_column(rows, "price", lambda place: f"{place},{place + 100}"))
    with pytest.raises(
        UsageError, match=r"^t.csv: column 'price' has numbers such as '1,101'.*thousands=true"
    ) as caught:
        table(path, target="price")
    assert "\n" not in str(caught.value), "it is told once"
    assert table(path, target="price", thousands=True).train.answer(0)[1] > 1000
    assert table(path, target="price", decimal=",", drop=("size",)).train.answer(0)[1] < 10


def test_column_with_the_name_of_a_feature_of_a_date_is_refused(tmp_path) -> None:
    path = tmp_path / "both.csv"
    lines = [f"2024-{1 + row % 12:02d}-07,{row * row},{'ab'[row % 2]}" for row in range(40)]
    path.write_text("\n".join(["d,d (day),y", *lines]))
    with pytest.raises(UsageError, match=r"a feature 'd \(day\)' is made, and the file has a column of this name too"):
        table(path, target="y")
    for dropped in ("d", "d (day)"):
        assert table(path, target="y", drop=(dropped,)).info.features
