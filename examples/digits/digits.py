"""Handwritten digits: 1,797 images of 8x8 pixels, and a small convolutional network, for ``alcore run digits.toml``.

`data` and `CNN` are named in the experiment file, as ``digits:data`` and ``digits:CNN``. The images come with
scikit-learn.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from alcore import Data, DataInfo, DatasetPool, TensorPool


def shifted(image: torch.Tensor) -> torch.Tensor:
    """Return an image moved by at most one pixel up or down and left or right; what leaves it is lost."""
    rows, columns = torch.randint(0, 3, (2,)).tolist()
    return torch.nn.functional.pad(image, (1, 1, 1, 1))[:, rows : rows + 8, columns : columns + 8]


def data(initial: int = 50, seed: int | None = None) -> Data:
    """Make a pool of 1,297 images to choose from, and one of 500 to measure on.

    Parameters
    ----------
    initial
        How many images are labeled at the start, drawn at random.
    seed
        Seed of the split and of the first labels; that of the run if it is not given.
    """
    images, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed or 0))
    inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    targets = torch.tensor(digits)[order]
    info = DataInfo("classification", 10, shape=(1, 8, 8), names=tuple("0123456789"))
    train = DatasetPool(TensorDataset(inputs[500:], targets[500:]), range(initial), transform=shifted, info=info)
    held_out = TensorPool(inputs[:500], targets[:500], range(500), info=info)
    return Data(train, held_out, info=info)


class CNN(torch.nn.Sequential):
    """Two convolutions and one hidden layer with dropout: 10 logits for images of shape (B, 1, 8, 8).

    Parameters
    ----------
    width
        Channels of the first convolution; the second has twice as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__(
            torch.nn.Conv2d(1, width, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(width, 2 * width, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(2 * width * 16, 64),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(64, 10),
        )
