"""Each refusal says what, where, and what to do about it."""

from __future__ import annotations

import os
import shlex
import tomllib

import pytest
from alcore_tabular import TableWarning, table
from alcore_tabular.messages import listed, nearest, setting, shown
from hypothesis import given
from hypothesis import strategies as st

from alcore.errors import UsageError


def refusal(path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        table(path, **{"target": "bought", **options})
    message = str(caught.value)
    assert "\n" not in message, "one paragraph"
    return message


def put(line: int, place: int, cell: str):
    def change(rows):
        rows[line - 1][place] = cell

    return change


def column(name: str, cell, place: int = 0):
    def change(rows):
        for number, row in enumerate(rows):
            row.insert(place, cell(number) if number else name)

    return change


@pytest.mark.parametrize(
    ("change", "options", "fragments"),
    [
        (None, {"target": "bougth"}, ["no column 'bougth'", "did you mean 'bought'"]),
        (None, {"target": "BOUGHT"}, ["did you mean 'bought'"]),
        (None, {"drop": ("color",)}, ["no column 'color' to drop", "did you mean 'colour'"]),
        (None, {"categories": ("sise",)}, ["no column 'sise'", "did you mean 'size'"]),
        (None, {"drop": ("bought",)}, ["'bought' is both the target and in data.csv.drop"]),
        (None, {"categories": ("bought",)}, ["--set data.csv.task=classification"]),
        (None, {"drop": ("size",), "categories": ("size",)}, ["data.csv.drop and data.csv.categories"]),
        (None, {"drop": ("size", "colour")}, ["no column is left"]),
        (None, {"drop": "size"}, ["not a list", "--set 'data.csv.drop=[\"size\"]'"]),
        (None, {"validation": 0}, ["validation: 0 "]),
        (None, {"validation": 1.0}, ["validation: 1.0 "]),
        (None, {"validation": float("nan")}, ["validation: nan "]),
        (None, {"initial": 31}, ["training part has 30"]),
        (None, {"task": "classify"}, ["task: 'classify'", "did you mean 'classification'"]),
        (None, {"missing": "ignore"}, ["missing: 'ignore'", "drop"]),
        (None, {"decimal": ";"}, ["decimal: ';'"]),
        (None, {"inputs": "pixels"}, ["inputs: 'pixels'"]),
        (None, {"delimiter": "::"}, ["delimiter: '::'"]),
        (None, {"delimiter": ":"}, ["one column"]),
        (
            put(14, 0, "?"),
            {},
            ["column 'size' has a missing value: line 14 has '?'", "1 of 120 values", "missing=drop"],
        ),
        (put(14, 1, ""), {}, ["column 'colour'", "line 14 is empty there"]),
        (put(14, 2, "NA"), {}, ["column 'bought'", "line 14 has 'NA'", "unlabeled=ask", "unlabeled=drop"]),
        (put(14, 2, "NA"), {"missing": "fill"}, ["'bought' is the target", "line 14", "unlabeled=drop"]),
        (
            put(14, 0, "4O.1"),
            {},
            ["'size' has text where numbers belong: line 14 has '4O.1'", "39 of its 40", "drop="],
        ),
        (put(14, 0, "1_000"), {}, ["line 14 has '1_000'"]),
        (put(14, 0, "40,1"), {}, ["line 14 has '40,1'", "Correct the cell, leave the column out"]),
        (put(14, 0, "-inf"), {}, ["infinite", "line 14 has '-inf'"]),
        (put(14, 0, "1e999"), {}, ["1.8e308", "line 14 has '1e999'"]),
        (put(1, 1, "size"), {}, ["2 columns are named 'size' (columns 1, 2)", "drop="]),
        (put(1, 1, ""), {}, ["column 2 of 3 has no name", "'data.csv.drop=[\"\"]'"]),
        (lambda rows: rows[13].append("x"), {}, ["line 14: 4 cells", "3 columns"]),
        (lambda rows: rows[13].pop(), {}, ["line 14: 2 cells", "3 columns"]),
        (lambda rows: rows.append(list(rows[0])), {}, ["line 42", "same as the first"]),
        (lambda rows: rows.pop(0), {}, ["line 1", "column names"]),
        (lambda rows: rows.__delitem__(slice(11, None)), {}, ["10 usable rows", "at least 20"]),
        (lambda rows: rows.__delitem__(slice(1, None)), {}, ["no row below it"]),
        (
            column("name", lambda number: f"n{number}"),
            {},
            ["'name' has text", "40 different values", "line 2 has 'n1'"],
        ),
        (column("gap", lambda _: "none"), {}, ["'gap' is empty", "--set 'data.csv.drop=[\"gap\"]'"]),
        (column("gap", lambda _: ""), {"missing": "drop"}, ["'gap' is empty"]),
        (
            column("far", lambda number: "1e308" if number % 2 else "-1e308"),
            {},
            ["'far' has numbers that are too large"],
        ),
    ],
)
def test_a_table_that_can_not_be_learned_from(rows, write, change, options, fragments) -> None:
    if change is not None:
        change(rows)
    message = refusal(write(rows), **options)
    for fragment in fragments:
        assert fragment in message


def test_without_a_target_the_columns_are_listed_with_kind_and_values(rows, write) -> None:
    column("note", lambda number: f"note {number}")(rows)
    column("gap", lambda number: "" if number < 4 else "7")(rows)
    column("void", lambda _: "n/a")(rows)
    column("day", lambda number: f"2024-01-{1 + number % 30:02}", place=1)(rows)
    column("odd", lambda number: "-" if number == 1 else f"{number},204.5", place=1)(rows)
    with pytest.raises(UsageError) as caught:
        table(write(rows))
    first, *lines = str(caught.value).splitlines()
    assert "t.csv: which column is to be predicted?" in first
    assert "--target bought" in first
    size = ", ".join(row[5] for row in rows[1:4])
    assert lines[:6] == [
        "- void: empty",
        "- odd: numbers, 40 different: -, '2,204.5', '3,204.5'; and text: '-'",
        "- day: dates, 30 different: 2024-01-02, 2024-01-03, 2024-01-04",
        "- gap: numbers, 1 different: 7; 3 missing",
        "- note: 40 different texts: 'note 1', 'note 2', 'note 3', ...",
        f"- size: numbers, {len({row[5] for row in rows[1:]})} different: {size}",
    ]
    assert lines[6].startswith("- colour: 3 different categories: ")
    assert lines[7] == "- bought: 2 different categories: no, yes"


def test_of_very_many_columns_the_first_and_the_last_are_listed(rows, write) -> None:
    for place in range(50):
        column(f"c{place}", str)(rows)
    with pytest.raises(UsageError, match=r"\.\.\. 13 more columns \.\.\.") as caught:
        table(write(rows))
    assert len(str(caught.value).splitlines()) == 42


def test_all_faults_come_in_one_message_with_flags_that_mend_them_together(rows, write) -> None:
    column("id", lambda number: f"n{number}")(rows)
    column("code", lambda number: f"c{number}")(rows)
    column("weight", lambda number: "unknown" if number % 10 == 3 else f"{number / 4}")(rows)
    column("far", lambda number: "inf" if number == 7 else f"{number % 9}")(rows)
    column("void", lambda _: "")(rows)
    column("gap", lambda number: "" if number == 3 else f"{number % 7}")(rows)
    path = write(rows)
    with pytest.raises(UsageError) as caught:
        table(path, target="bought", drop=("code",))
    first, *lines, last = str(caught.value).splitlines()
    assert first == "t.csv: 5 things are wrong:"
    told = [line.split("'")[1] for line in lines]
    assert sorted(told) == ["far", "gap", "id", "void", "weight"]
    flags = {}
    for word in shlex.split(last):
        if word.startswith("data.csv."):
            name, _, value = word.removeprefix("data.csv.").partition("=")
            flags[name] = tomllib.loads(f"v = {value}")["v"] if value.startswith("[") else value
    assert set(flags["drop"]) == {"code", "id", "far", "void"}
    assert flags["missing"] == "fill"
    assert flags["blanks"][-1] == "unknown"
    with pytest.warns(TableWarning):
        assert table(path, target="bought", **flags).info.features == 2 + 4


def test_faults_of_features_and_of_the_target_are_told_together(rows, write) -> None:
    column("id", lambda number: f"n{number}")(rows)
    rows[4][3] = "perhaps"
    with pytest.raises(UsageError) as caught:
        table(write(rows), target="bought")
    message = str(caught.value)
    assert "'id' has text" in message
    assert "'perhaps'" in message
    assert "1 of the 2 must be mended in the file" in message


def test_many_categories_must_be_asked_for(rows, write) -> None:
    rows += [list(row) for row in rows[1:] * 2]
    column("place", lambda number: f"p{number % 55}")(rows)
    path = write(rows)
    assert "55 different values in 120 rows, which is more than 50" in refusal(path)
    with pytest.warns(TableWarning, match="'place' holds categories that the training part lacks"):
        assert 50 < table(path, target="bought", categories=("place",)).info.features < 4 + 55


OTHER = {".": ",", ",": "."}


def numbers(rows, mark: str, target: bool = False):
    """Return rows with a decimal mark, of one number and one category, and of a number in place of the classes."""
    body = [[row[0].replace(".", mark), row[1], f"{place}{mark}5" if target else row[2]]
            for place, row in enumerate(rows[1:])]  # fmt: skip
    return [rows[0], *body]


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize(
    ("place", "options"), [(0, {}), (2, {}), (2, {"task": "regression"}), (2, {"drop": ("size",)})]
)
def test_one_cell_with_the_other_decimal_mark_is_a_bad_cell(rows, write, mark, place, options) -> None:
    rows = numbers(rows, mark, target="task" in options)
    rows[13][place] = f"1{OTHER[mark]}5"
    message = refusal(write(rows, delimiter=";"), decimal=mark, **options)
    assert f"line 14 has '1{OTHER[mark]}5'" in message
    assert "decimal=" not in message


@pytest.mark.parametrize("mark", [".", ","])
def test_one_cell_that_may_be_above_a_thousand_is_no_reason_for_another_decimal_mark(rows, write, mark) -> None:
    rows = [[*row, "count" if not place else str(place)] for place, row in enumerate(numbers(rows, mark))]
    rows[13][3] = f"1{OTHER[mark]}204"
    message = refusal(write(rows, delimiter=";"), decimal=mark)
    assert f"line 14 has '1{OTHER[mark]}204'" in message
    assert "thousands=true" in message
    assert "correct such cells" in message
    assert "decimal=" not in message


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize(("options", "target"), [({}, False), ({}, True), ({"task": "regression"}, True)])
def test_decimal_mark_that_the_numbers_have_is_offered_and_mends_all_columns(
    rows, write, mark, options, target
) -> None:
    path = write(numbers(rows, OTHER[mark], target), delimiter=";")
    with pytest.raises(UsageError) as caught:
        table(path, target="bought", decimal=mark, **options)
    offer = setting("decimal", OTHER[mark])
    lines = str(caught.value).splitlines()
    assert offer in lines[0] if len(lines) == 1 else lines[-1] == f"- One way to mend all that flags can mend: {offer}"
    assert table(path, target="bought", decimal=OTHER[mark], **options).info.features == 4


def test_a_point_is_no_decimal_mark_where_a_comma_is(rows, write) -> None:
    for row in rows[1:]:
        row[0] = row[0].replace(".", ",")
    rows[13][0] = "1.5"
    assert "line 14 has '1.5'" in refusal(write(rows, delimiter=";"), decimal=",")


def test_only_constant_columns(rows, write) -> None:
    rows = [["k", "bought"], *(["1", row[2]] for row in rows[1:])]
    assert "every column beside the target is constant" in refusal(write(rows))


def test_a_remedy_keeps_what_was_left_out_and_works(rows, write) -> None:
    column("name", lambda number: f"n{number}")(rows)
    column("code", lambda number: f"c{number}")(rows)
    path = write(rows)
    message = refusal(path, drop=("code",))
    option = next(word for word in shlex.split(message) if word.startswith("data.csv.drop="))
    drop = tomllib.loads(option.removeprefix("data.csv.").rstrip(",."))["drop"]
    assert drop == ["code", "name"]
    assert table(path, target="bought", drop=tuple(drop)).info.features == 4


def test_a_held_out_value_too_far_away(rows, write) -> None:
    for place, row in enumerate(rows[1:]):
        row[2] = f"{place + 0.5}"
    held = int(table(write(rows), target="bought").val.answer(0)[1].item())
    rows[held + 1][0] = "1e300"
    assert f"'size' has a value that is too far from the others to be standardized: line {held + 2}" in refusal(
        write(rows)
    )


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["no text"]),
        (b"\n\n", ["no text"]),
        (b"a,y\n1,2\n\x00\x01\x02,3\n", ["line 3", "zero byte"]),
        (b"a,y\n1,2\ncaf\xe9,3\n", ["line 3", "0xe9", "'é'", "iconv"]),
        ("a,y\n1,2\n".encode("utf-16"), ["UTF-16"]),
        (b"PK\x03\x04\x14\x00\x00\x00", ["Excel"]),
        (b"\x1f\x8b\x08\x00", ["gunzip"]),
        (b"PAR1\x15\x00", ["Parquet"]),
        (b'a,y\n1,2\n"3,4\n5,6\n', ["line 3", "quotation mark"]),
        (b'a,y\n"1"x,2\n', ["line 2", "not valid CSV"]),
    ],
)
def test_files_that_are_no_csv(tmp_path, content, fragments) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    message = refusal(path)
    for fragment in ["t.csv", *fragments]:
        assert fragment in message


def test_a_header_may_begin_like_another_format(rows, write) -> None:
    rows[0][0] = "PAR1"
    assert table(write(rows), target="bought").info.features == 4


def test_paths_that_are_no_file(rows, write, tmp_path) -> None:
    write(rows, name="houses.csv")
    (tmp_path / "notes.md").touch()
    message = refusal(tmp_path / "house.csv")
    assert "no file 'house.csv'" in message
    assert "did you mean 'houses.csv'" in message
    assert "notes.md" not in message
    assert "is a directory" in refusal(tmp_path)
    assert "'houses.csv'" in refusal(tmp_path)
    assert "neither does the folder" in refusal(tmp_path / "nowhere" / "t.csv")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1))
def test_a_setting_survives_shell_and_toml(names) -> None:
    flag, option = shlex.split(setting("drop", names))
    assert flag == "--set"
    assert tomllib.loads(option.removeprefix("data.csv.")) == {"drop": names}


@pytest.mark.parametrize("word", ["true", "inf", "", "two words", "3"])
def test_a_word_that_toml_would_read_otherwise_is_quoted(word) -> None:
    option = shlex.split(setting("target", word))[1]
    assert tomllib.loads(option.removeprefix("data.csv.")) == {"target": word}


def test_long_lists_and_cells_are_cut_short() -> None:
    names = [f"column{number}" for number in range(300)]
    assert len(nearest("colunm17", names)) < 500
    assert "'column17'" in nearest("colunm17", names)
    assert "and 280 more" in nearest("colunm17", names)
    assert listed(names).endswith("and 295 more")
    assert len(shown("x" * 500)) < 50


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["t.csv", "t.npz"])
def test_only_a_regular_file_is_read(tmp_path, kind, name) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)  # reading it would wait for a writer
    else:
        path.symlink_to("/dev/zero")  # reading it would never end
    assert "not a regular file" in refusal(path)
