"""Reading CSV: what was written comes back, with its line numbers."""

from __future__ import annotations

import csv
import warnings

import pytest
from alcore_tabular.columns import Columns, read_csv
from alcore_tabular.csv_reader import TextTable, read_rows
from alcore_tabular.faults import Faults
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alcore.errors import UsageError

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)

# Python's writer leaves a carriage return bare where lines end with a newline alone, unless all is quoted.
STYLES = [{"lineterminator": "\r\n"}, {"lineterminator": "\n", "quoting": csv.QUOTE_ALL}]


@st.composite
def tables(draw):
    names = draw(st.lists(CELLS.map(str.strip).filter(bool), min_size=1, max_size=4, unique=True))
    row = st.lists(CELLS, min_size=len(names), max_size=len(names))
    return names, draw(st.lists(row, min_size=1, max_size=6))


def looks_like_a_header(names: list[str], rows: list[list[str]]) -> bool:
    seen = [{row[place].strip() for row in rows} for place in range(len(names))]
    return not any(name in column for name, column in zip(names, seen, strict=True)) and not any(
        character.isdigit() for name in names for character in name
    )


@settings(max_examples=150, deadline=None)
@given(table=tables(), delimiter=st.sampled_from(",;\t|"), style=st.sampled_from(STYLES))
def test_any_table_written_by_csv_comes_back(tmp_path_factory, table, delimiter, style) -> None:
    names, rows = table
    assume(looks_like_a_header(names, rows))
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, **style)
        writer.writerows([names, *rows])
    sheet = read_rows(path, delimiter)
    assert sheet.names == names
    assert sheet.rows == [[cell.strip() for cell in row] for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(rows, write, delimiter) -> None:
    rows[3][1] = f"a{delimiter}b, or c; or d"  # quoted where it must be
    assert read_rows(write(rows, delimiter=delimiter)).rows == rows[1:]


def test_a_semicolon_wins_over_decimal_commas(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b;c\n1,5;2,5;x\n1,0;2;y\n")
    assert read_rows(path).rows == [["1,5", "2,5", "x"], ["1,0", "2", "y"]]


def test_a_delimiter_that_fits_all_rows_wins_over_one_that_splits_the_header(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x;note, in a, few words\n1;y\n2;z\n")
    assert read_rows(path).names == ["x", "note, in a, few words"]


@pytest.mark.parametrize("typed", ["tab", "\\t", "\t"])
def test_a_tab_can_be_typed(rows, write, typed) -> None:
    assert read_rows(write(rows, delimiter="\t"), typed).names == rows[0]


def test_byte_order_mark_blank_lines_and_spaces_are_no_content(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf\r\na, b\r\n\r\n1, "x, y"\r\n\r\n')
    sheet = read_rows(path)
    assert (sheet.names, sheet.rows, sheet.lines) == (["a", "b"], [["1", "x, y"]], [4])


def test_a_row_is_told_by_the_line_on_which_it_begins(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"two\nlines"\n\n3,x\n4,y\n')
    assert read_rows(path).lines == [2, 5, 6]


@pytest.mark.parametrize("header", ["2019,2020,place", "400.5,401.5,name", "0,1,2", "x,y,-", "inf,a,b"])
def test_names_may_be_numbers(tmp_path, header) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n1.5,2.5,3\n4.5,2.5,7\n")
    assert read_rows(path).names == header.split(",")


@pytest.mark.parametrize(
    "first",
    ["5.1,3.5,setosa", "5.1,3.5,0.2", "1,1,name", "-1,2,name", "p,x,setosa"],
    ids=["label comes again", "fractions", "equal numbers", "negative", "all text"],
)
def test_a_first_line_that_is_data_is_refused(tmp_path, first) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{first}\np,x,setosa\n4.9,3.0,setosa\n" if first == "p,x,setosa" else f"{first}\n4.9,3.0,setosa\n")
    with pytest.raises(UsageError, match=r"line (1|2): .*first"):
        read_rows(path)


def test_columns_are_found_without_a_search_through_the_names() -> None:
    class Names(list[str]):
        def index(self, *_: object) -> int:
            raise AssertionError("a search for each of 100,000 columns takes minutes")

    sheet = TextTable("t.csv", Names(["a", "b", "a"]), [["1", "x", "2"], ["3", "", "4"]], [2, 3])
    assert sheet.column("b") == ["x", ""]
    assert sheet.column("a") == ["1", "3"]
    assert sheet.describe(0, "b") == "line 2 has 'x'"
    assert sheet.describe(1, "b") == "line 3 is empty there"


@pytest.mark.parametrize("blanks", [("", "na"), ("-999",), ("nan", "inf")])
@pytest.mark.parametrize(
    "cells",
    [
        ["1", "2.5", "-3e4", "0"], ["1_0", "2", "3", "4"], ["nan", "1", "2", "3"], ["inf", "-Infinity", "1", "2"],
        ["-999", "1", "2", "3"], ["", "1", "2", "3"], ["\u0661", "2", "3", "5"], ["1e999", "1", "2", "4"],
        ["x", "x", "y", "y"], ["1,5", "2", "3", "4"], ["1", "2", "3", "4"],
    ],
)  # fmt: skip
def test_column_of_numbers_alone_is_read_as_any_other(tmp_path, monkeypatch, cells, blanks) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["a", "y"], *([cell, "u"] for cell in cells)])

    def read() -> tuple[list[list[str]], list[str], list[str]] | str:
        faults = Faults(path.name, {})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                raw = read_csv(path, "y", Columns(blanks=blanks), faults)
                faults.check()
        except UsageError as error:
            return str(error)
        return raw.numbers.astype(str).tolist(), raw.number_names, raw.text_names

    quick = read()
    monkeypatch.setattr("alcore_tabular.columns._Reader.add_numbers", lambda *_: False)
    assert quick == read()
