"""What is in the columns of a CSV file, for the message that asks which of them is the target."""

from __future__ import annotations

from collections.abc import Collection

from alcore_tabular.csv_reader import TextTable
from alcore_tabular.messages import listed, shown
from alcore_tabular.number_format import DecimalMark
from alcore_tabular.standalone import date, grouped_number

_EXAMPLES = 3
_MOST_COLUMNS = 40  # in one message; of more columns the first and the last are listed
_FEW_VALUES = 20  # of these, text is called categories


def overview(csv_text: TextTable, blanks: Collection[str], mark: DecimalMark) -> str:
    """List the columns, one a line, each with its kind and some of its values.

    Parameters
    ----------
    csv_text
        The table.
    blanks
        Cells that are missing values, in lower case.
    mark
        The decimal mark.
    """
    names = csv_text.names
    half = _MOST_COLUMNS // 2
    listed = names if len(names) <= _MOST_COLUMNS else [*names[:half], *names[-half:]]
    lines = [f"- {name}: {_contents(csv_text.column(name), blanks, mark)}" for name in listed]
    if len(listed) < len(names):
        lines.insert(half, f"- ... {len(names) - len(listed)} more columns ...")
    return "\n".join(lines)


def _contents(cells: list[str], blanks: Collection[str], mark: DecimalMark) -> str:
    present = [cell for cell in cells if cell.casefold() not in blanks]
    values = list(dict.fromkeys(present))
    if not values:
        return "empty"
    examples = ", ".join(shown(value) if "," in value or " " in value else value for value in values[:_EXAMPLES])
    gaps = f"; {len(cells) - len(present)} missing" if len(present) < len(cells) else ""
    if all(grouped_number(value, mark) is not None for value in values):
        return f"numbers, {len(values)} different: {examples}{gaps}"
    if any(all(date(value, order) is not None for value in values) for order in ("dmy", "mdy")):
        return f"dates, {len(values)} different: {examples}{gaps}"
    odd = [value for value in values if grouped_number(value, mark) is None]
    if len(odd) < len(values) / 2:
        return f"numbers, {len(values)} different: {examples}; and text: {listed(odd, _EXAMPLES)}{gaps}"
    kind = "categories" if len(values) <= _FEW_VALUES else "texts"
    return f"{len(values)} different {kind}: {examples}{', ...' if len(values) > _EXAMPLES else ''}{gaps}"
