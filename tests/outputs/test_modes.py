"""The modes of a learner while its outputs are computed."""

from __future__ import annotations

import pytest
import torch

from alcore.outputs import eval_mode, evaluating


def test_each_submodule_gets_its_mode_back_after_an_error() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2))
    model[1].eval()  # a frozen part
    model.train(True)
    model[1].eval()
    with pytest.raises(ZeroDivisionError), evaluating(model):  # noqa: PT012
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert [part.training for part in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_evaluating_takes_a_learner_that_is_not_a_module() -> None:
    with evaluating(object()):
        assert not torch.is_grad_enabled()


def test_eval_mode_leaves_gradients_enabled() -> None:
    model = torch.nn.Linear(2, 1)
    with eval_mode(model):
        assert not model.training
        assert torch.is_grad_enabled()
    assert model.training
