"""The multi-layer perceptron."""

import pytest
import torch
from alcore_moons import MLP, mlp

from alcore import DataInfo, UsageError


def linears(model):
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


def test_two_in_sixteen_hidden_one_out():
    model = MLP()
    assert [(layer.in_features, layer.out_features) for layer in linears(model)] == [(2, 16), (16, 1)]
    assert sum(one.numel() for one in model.parameters()) == 2 * 16 + 16 + 16 + 1
    inputs = torch.randn(7, 2)
    first, last = linears(model)
    hidden = inputs @ first.weight.T + first.bias
    expected = (hidden * torch.sigmoid(hidden)) @ last.weight.T + last.bias  # SiLU(x) = x sigmoid(x)
    torch.testing.assert_close(model(inputs), expected)
    assert not hasattr(model, "outputs")  # logits, as the default is


def test_hidden_layers_and_dropout():
    model = MLP(3, 4, hidden=[5, 6], dropout=0.5)
    assert [(layer.in_features, layer.out_features) for layer in linears(model)] == [(3, 5), (5, 6), (6, 4)]
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in model.modules()) == 2
    inputs = torch.randn(20, 3)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in MLP().modules())
    assert len(linears(MLP(hidden=[]))) == 1


@pytest.mark.parametrize(
    ("info", "inputs", "outputs"),
    [
        (DataInfo("classification", classes=2, features=2), (2,), 1),
        (DataInfo("classification", classes=5, features=3), (3,), 5),
        (DataInfo("regression", features=4), (4,), 1),
        (DataInfo("classification", classes=10, shape=(1, 4, 4)), (1, 4, 4), 10),
    ],
    ids=["two classes", "five classes", "regression", "images"],
)
def test_mlp_has_inputs_and_outputs_of_the_data(info, inputs, outputs):
    model = mlp(info, hidden=(8,))
    assert model(torch.randn(6, *inputs)).shape == (6, outputs)
    assert linears(model)[0].out_features == 8


def test_data_of_unknown_size_is_refused():
    with pytest.raises(UsageError, match=r"is unknown \(DataInfo.features\)"):
        mlp(DataInfo("classification", classes=2))
