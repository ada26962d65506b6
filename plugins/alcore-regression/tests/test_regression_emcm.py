"""Expected model change against loops, and its committee against numpy's least squares."""

import numpy as np
import pytest
import torch
from alcore_regression import bootstrap_committee, emcm, expected_model_change
from hypothesis import given, settings
from hypothesis import strategies as st


def generator(seed):
    return torch.Generator().manual_seed(seed)


def least_squares(x, y, ridge):
    """A ridge regression with an intercept as an ordinary one: the penalty as more rows."""
    strength = np.sqrt(ridge * ((x - x.mean(axis=0)) ** 2).sum() / x.shape[1])
    design = np.block([[x, np.ones((len(x), 1))], [strength * np.eye(x.shape[1]), np.zeros((x.shape[1], 1))]])
    return np.linalg.lstsq(design, np.concatenate([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)[0]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 20),
    columns=st.integers(1, 12),
    quantities=st.integers(1, 2),
    ridge=st.sampled_from([1e-3, 0.1, 10.0]),
    seed=st.integers(0, 2**16),
)
def test_each_member_is_a_least_squares_fit(size, columns, quantities, ridge, seed):
    x, y = torch.randn(size, columns, generator=generator(seed)), torch.randn(size, quantities)
    committee = bootstrap_committee(x, y, 3, ridge, generator(seed))
    drawn = torch.randint(size, (3, size), generator=generator(seed))
    assert committee.shape == (3, columns + 1, quantities)
    for member, rows in zip(committee, drawn, strict=True):
        if len(rows.unique()) > 1:
            expected = least_squares(x[rows].double().numpy(), y[rows].double().numpy(), ridge)
            np.testing.assert_allclose(member.numpy(), expected, rtol=1e-6, atol=1e-8)
        else:  # all rows are the same, and so is the answer
            assert not member[:-1].any()
            torch.testing.assert_close(member[-1], y[rows[0]].double())


def test_one_labeled_sample_gives_its_target():
    committee = bootstrap_committee(torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0]]), 4, 1e-3, generator(0))
    assert committee.tolist() == [[[0.0], [0.0], [5.0]]] * 4


def test_a_linear_function_is_found():
    x = torch.randn(50, 3, generator=generator(1), dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 3
    committee = bootstrap_committee(x, y, 4, 1e-12, generator(0))
    torch.testing.assert_close(committee[..., 0], torch.tensor([[1.0, -2, 0.5, 3]] * 4, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 30),
    columns=st.integers(1, 6),
    quantities=st.integers(1, 3),
    members=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_scores_are_those_of_loops(size, columns, quantities, members, seed):
    draw = generator(seed)
    x, f = torch.randn(size, columns, generator=draw), torch.randn(size, quantities, generator=draw)
    committee = torch.randn(members, columns + 1, quantities, generator=draw, dtype=torch.float64)
    expected = []
    for row, known in zip(x.double().numpy(), f.double().numpy(), strict=True):
        long = np.append(row, 1.0)
        # the length of the gradient of each member's squared error, a matrix of a row a quantity
        lengths = [np.linalg.norm(np.outer(known - long @ member.numpy(), long)) for member in committee]
        expected.append(np.mean(lengths))
    with pytest.MonkeyPatch.context() as patch:
        for elements in (2**20, 40):
            patch.setattr(emcm, "_ELEMENTS", elements)
            scores = expected_model_change(x, f, committee)
            assert scores.dtype == torch.float64
            np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12)


def test_equal_rows_have_equal_scores_wherever_they_stand():
    x = torch.randn(7, 33, generator=generator(2))
    f, committee = torch.randn(7, 1, generator=generator(3)), torch.randn(4, 34, 1, dtype=torch.float64)
    rows = torch.randint(7, (3001,), generator=generator(4))
    scores = expected_model_change(x[rows], f[rows], committee)
    for sample in range(7):
        assert len(scores[rows == sample].unique()) == 1
