"""`program_of`: a learner as a Python file that computes the same, or the reason why there is none."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from alcore_predict.program import NoProgramError, program_of
from safetensors.torch import save_file


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Dropout(0.5)
        )
        self.register_buffer("scale", torch.tensor(2.5), persistent=False)

    def forward(self, inputs):
        return self.layers(inputs).mean(dim=(2, 3)) * self.scale + torch.tensor([0.5])


class Committee(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(3))

    def forward(self, inputs):
        return torch.stack([member(inputs) for member in self.members])


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell = torch.nn.Embedding(9, 5), torch.nn.GRU(5, 4, batch_first=True)

    def forward(self, inputs):
        return self.cell(self.embedding(inputs))[0].mean(dim=1)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (Convolution, torch.randn(5, 1, 6, 6)),
        (Committee, torch.randn(5, 4)),
        (Recurrent, torch.arange(35).reshape(5, 7) % 9),
    ],
)
def test_written_program_gives_the_outputs_of_the_learner(make, inputs, tmp_path: Path) -> None:
    learner = make()
    learner(inputs)
    program = program_of(learner, inputs, "A learner.")
    (tmp_path / "model.py").write_text(program.source)
    save_file(dict(learner.state_dict()), tmp_path / "model.safetensors")
    if program.constants:
        save_file(program.constants, tmp_path / "constants.safetensors")
    assert "alcore" not in program.source.replace("alcore export", "")
    loaded = runpy.run_path(str(tmp_path / "model.py"))["load"](tmp_path)
    learner.eval()
    for batch in (inputs, inputs[:1], torch.cat([inputs] * 3)):
        assert torch.allclose(loaded(batch), learner(batch), atol=1e-6)


class Branch(torch.nn.Module):
    def forward(self, inputs):
        return inputs if inputs.sum() > 0 else -inputs


class Pair(torch.nn.Module):
    def forward(self, inputs):
        return inputs, inputs


class Noise(torch.nn.Module):
    def forward(self, inputs):
        return inputs + torch.randn_like(inputs)


@pytest.mark.parametrize(
    ("learner", "reason"),
    [
        (Branch(), "torch.export can't export the learner"),
        (Pair(), "returns a tuple, not a tensor"),
        (Noise(), "draw random numbers"),
        (print, "not a torch.nn.Module"),
    ],
)
def test_learner_that_is_no_graph_is_told(learner, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoProgramError, match=reason):
        program_of(learner, torch.randn(4, 2), "A learner.")
    assert capfd.readouterr() == ("", "")
