"""A bounded sample of a stream of rows."""

import numpy as np
import pytest
from alcore_metrics.sample import RowSample


def kept(values, most, chunk):
    sample = RowSample(most)
    for start in range(0, len(values), chunk):
        part = values[start : start + chunk]
        sample.add(part, part * 10)
    return sample.columns()


@pytest.mark.parametrize("most", [1, 10, 99, 100, 101, 1000])
def test_the_sample_does_not_depend_on_chunks_and_keeps_order_and_rows(most):
    values = np.arange(100.0)
    samples = [kept(values, most, chunk) for chunk in (1, 7, 100)]
    for one, tens in samples:
        assert len(one) == min(most, 100)
        assert (np.diff(one) > 0).all()
        assert (tens == 10 * one).all()
        assert (one == samples[0][0]).all()


def test_every_row_is_kept_as_often_as_any_other():
    first = kept(np.arange(30_000.0), 3000, 1000)[0]
    parts = np.histogram(first, bins=10, range=(0, 30_000))[0]
    assert abs(parts - 300).max() < 5 * np.sqrt(300 * 0.9)
    assert abs((first % 2).mean() - 0.5) < 0.05


def test_chunks_may_be_written_to_afterwards():
    sample, chunk = RowSample(5), np.arange(3.0)
    sample.add(chunk)
    chunk[:] = 9
    assert sample.columns()[0].tolist() == [0, 1, 2]


def test_nothing_is_kept_of_nothing():
    assert RowSample(5).columns() == kept(np.arange(3.0), 0, 2) == []
