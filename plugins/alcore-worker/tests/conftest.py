"""Where worker and driver meet in the tests: each backend is put to the same tests."""

import pytest


@pytest.fixture(params=["folder"])
def place(request, tmp_path):
    """An exchange that holds nothing yet, as a driver and a worker are given it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    return str(shared)
