"""What is read from a table keeps the contract of pools."""

import pytest
from alcore_tabular import table
from alcore_testing import PoolContract

ROWS = [f"{place**2 % 41},{place % 7},{'red' if place % 3 else 'blue'},{place % 2}" for place in range(40)]


class TestTable(PoolContract):
    name = "csv"
    required_parameters = ("path",)

    @pytest.fixture(autouse=True)
    def _write(self, tmp_path):
        self._path = tmp_path / "table.csv"
        self._path.write_text("\n".join(["width,height,colour,kind", *ROWS]) + "\n", encoding="utf-8")

    def data(self):
        return table(self._path, target="kind", initial=6)


class TestRegression(TestTable):
    def data(self):
        return table(self._path, target="width", task="regression", initial=6)
