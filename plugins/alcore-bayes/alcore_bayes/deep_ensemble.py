"""A deep ensemble for small numbers of labels: networks fitted together, with a weight decay that is chosen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from alcore.errors import UsageError
from alcore.pools import DataInfo, tensors_of

_BAGS = 4
"""How many networks are fitted with each weight decay to choose from, each to a bootstrap sample."""
_MOST_TO_CHOOSE = 256
"""How many labels the weight decay is chosen on, at most."""
_STEPS_TO_CHOOSE = 60
_STEPS = {"classification": 150, "regression": 200}
_EPOCHS = 20
"""The members are fitted in this many epochs, or in `_STEPS` where that is more."""
_DECAYS = {"classification": (0.1, 1.0, 5.0), "regression": (0.01, 0.1, 1.0, 5.0, 20.0)}
_LEAST_NOISE = 0.05
"""Least variance of the noise, as a share of the mean square of the residuals of labels that are left out."""
_BATCH = 256
_LEARNING_RATE = 0.01
_WARM_UP = 10
"""Steps in which the learning rate rises."""
_FIRST_OUTPUTS = 0.1
"""Scale of the initial weights of the last layer."""


class DeepEnsemble(torch.nn.Module):
    """An ensemble of networks with a weight decay that is chosen by its out-of-bag loss.

    Parameters
    ----------
    info
        What is known about the data: it determines the number of inputs, and of classes or quantities.
    members
        Number of networks, K; at least 2 for a regression.
    hidden
        Width of each hidden layer.
    weight_decay
        Strengths of the penalty on the weights to choose from; one number is not chosen, but used. None: 0.1, 1 and 5
        for a classification, and 0.01, 0.1, 1, 5 and 20 for a regression.

    Attributes
    ----------
    outputs : str
        ``"logits"`` of a classification: those of each network, shape (K, B, C). ``"mean-variance"`` of a regression:
        the means of each network, and the variance of the noise, shape (K, B, 2 T) for T quantities.
    chosen_decay : torch.Tensor
        Buffer: the weight decay of the last fit; 0 before the first.
    target_mean, target_scale, noise : torch.Tensor
        Buffers of a regression, shape (T,): mean and standard deviation of the labels, and the variance of the noise in
        units of the latter squared.

    Raises
    ------
    UsageError
        For labels that are fields, and for parameters without a meaning.

    Notes
    -----
    Each member has ReLU between its layers, and its loss is ``mean(cross entropy) + d / (2 n) ||W||^2`` over n labels,
    W being its weights without biases. That is, up to a factor, the negative log density of the weights given the
    labels under a normal prior of precision d, so the penalty falls with the number of labels. Members differ in their
    initial weights (He et al. 2015), and see the labels in the same order. Optimizer: Adam, in batches of up to 256
    labels, 150 steps (200 of a regression) or 20 epochs, whichever is more, with a learning rate that falls from 0.01
    to 0. Under a strong penalty the fit ends before the minimum is reached.

    Of several weight decays that one is taken whose networks have the least loss out of bag (Breiman 1996), the log
    loss of a classification and the square of a regression: for each, four networks are fitted to bootstrap samples of
    at most 256 labels, and predict the labels that they were not fitted to.

    A regression has half the square of the residual in place of the cross entropy, of labels less their mean and over
    their standard deviation. Each label is left out by one of the members, as in K-fold cross-validation. The mean
    square of the residuals of labels by the members that left them out, less the variance of the members there, is the
    variance of the noise, the same for all inputs; so the mean of the total variance is the error that was measured.

    Each fit begins anew, so that a prediction depends on the labels, the seed and the step alone. Before the first one
    all classes have equal probabilities, and a value has mean 0 and variance 1. Features, where strategies ask for
    them, are the inputs of the members' last layers, side by side, over the root of K: (B, K H). Everything is computed
    in float32.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
    ensembles, NeurIPS; Breiman (1996), Out-of-bag estimation, technical report, University of California, Berkeley;
    He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, ICCV. Residuals of labels that are left out:
    Barber, Candes, Ramdas and Tibshirani (2021), Predictive inference with the jackknife+, Annals of Statistics 49,
    where they make intervals without a distribution.
    """

    chosen_decay: torch.Tensor
    target_mean: torch.Tensor
    target_scale: torch.Tensor
    noise: torch.Tensor

    def __init__(
        self,
        info: DataInfo,
        members: int = 5,
        hidden: Sequence[int] = (64, 64),
        weight_decay: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if info.task not in _DECAYS or len(info.target_shape) > 1:
            what = f"labels of shape {info.target_shape}" if info.task in _DECAYS else f"the task {info.task}"
            raise UsageError(
                f"learner deep-ensemble: it learns classes, or one or several numbers a sample, and this data has "
                f"{what}; use --learner ensemble with a network for such labels."
            )
        features = info.features or (math.prod(info.shape) if info.shape else 0)
        if not features:
            raise UsageError(
                "learner deep-ensemble: the number of features of the data is unknown (DataInfo.features)."
            )
        least = 2 if info.task == "regression" else 1
        if members < least:
            raise UsageError(f"learner deep-ensemble: members is {members}; at least {least} is needed.")
        if not hidden or min(hidden) < 1:
            raise UsageError(f"learner deep-ensemble: hidden is {list(hidden)}; give at least one width, each above 0.")
        weight_decay = _DECAYS[info.task] if weight_decay is None else weight_decay
        if not weight_decay or not all(0 <= decay < math.inf for decay in weight_decay):
            raise UsageError(
                f"learner deep-ensemble: weight_decay is {list(weight_decay)}; give at least one finite number of at "
                "least 0."
            )
        self.task, self.members = info.task, members
        self.outputs = "logits" if info.task == "classification" else "mean-variance"
        self.weight_decay = tuple(float(decay) for decay in weight_decay)
        last = max(info.classes, 2) if info.task == "classification" else math.prod(info.target_shape)
        self.widths = (features, *hidden, last)
        for place, (weights, biases) in enumerate(_zeros(members, self.widths)):
            self.register_buffer(f"weights_{place}", weights)
            self.register_buffer(f"biases_{place}", biases)
        self.register_buffer("chosen_decay", torch.zeros(()))
        if info.task == "regression":
            for name, value in (("target_mean", 0.0), ("target_scale", 1.0), ("noise", 1.0)):
                self.register_buffer(name, torch.full((last,), value))

    def forward(self, inputs: Any) -> torch.Tensor:
        """Map inputs, shape (B, ...), to the outputs of all members: logits (K, B, C), or (K, B, 2 T)."""
        layers = self._layers()
        outputs = layers.last(layers.hidden(self._rows(inputs)))
        if self.task == "classification":
            return outputs
        variances = (self.noise * self.target_scale.square()).expand_as(outputs)
        return torch.cat([outputs * self.target_scale + self.target_mean, variances], dim=-1)

    def features(self, inputs: Any) -> torch.Tensor:
        """Return the inputs of the last layers of all members over the root of K: (B, K H)."""
        hidden = self._layers().hidden(self._rows(inputs))
        return hidden.movedim(0, 1).flatten(1) / math.sqrt(self.members)

    def fit_batches(self, batches: Iterable[Any], generator: torch.Generator) -> None:
        """Fit to labeled items, from new weights; without any, nothing is changed.

        Parameters
        ----------
        batches
            Inputs (B, ...), and class codes (B,) or values (B,) or (B, T), batch by batch.
        generator
            Where weights, bootstrap samples and the order of the items are drawn from; on the CPU.
        """
        pairs = [(self._rows(inputs).float(), targets.detach()) for inputs, targets in batches]
        if not pairs:
            return
        inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        is_regression = self.task == "regression"
        targets = self._scaled(targets.reshape(len(inputs), -1)) if is_regression else targets.flatten().long()
        with torch.enable_grad():
            decay = choose_decay(inputs, targets, self.widths, self.weight_decay, generator)
            left_out, times = None, None
            if is_regression:
                left_out = (torch.randperm(len(inputs), generator=generator) % self.members).to(inputs.device)
                times = (left_out != torch.arange(self.members, device=inputs.device)[:, None]).float()
                times *= len(inputs) / times.sum(dim=1, keepdim=True).clamp_min(1)
            steps = max(_STEPS[self.task], math.ceil(_EPOCHS * len(inputs) / min(len(inputs), _BATCH)))
            layers = _fitted(inputs, targets, self.widths, [decay] * self.members, generator, steps, times)
        if left_out is not None:
            self.noise.copy_(_noise(layers.last(layers.hidden(inputs)), targets, left_out))
        for place, (weights, biases) in enumerate(layers.pairs()):
            self.get_buffer(f"weights_{place}").copy_(weights)
            self.get_buffer(f"biases_{place}").copy_(biases)
        self.chosen_decay.fill_(decay)

    def _scaled(self, targets: torch.Tensor) -> torch.Tensor:
        """Take mean and scale of values, shape (n, T), and return them less the one and over the other."""
        values = targets.double()
        scale = values.std(dim=0, unbiased=False)
        self.target_mean.copy_(values.mean(dim=0))
        self.target_scale.copy_(torch.where(scale > 0, scale, 1.0))
        return ((values - self.target_mean) / self.target_scale).float()

    def _layers(self) -> _Layers:
        places = range(len(self.widths) - 1)
        return _Layers(
            [self.get_buffer(f"weights_{place}") for place in places],
            [self.get_buffer(f"biases_{place}") for place in places],
        )

    def _rows(self, inputs: Any) -> torch.Tensor:
        """Return inputs with one row a sample: shape (B, D)."""
        tensors = [inputs] if isinstance(inputs, torch.Tensor) else tensors_of(inputs)
        if len(tensors) != 1:
            raise UsageError(
                f"learner deep-ensemble: it takes one tensor of inputs, and this data gives {len(tensors)} a sample; "
                "join them in the pool."
            )
        rows = tensors[0].detach()
        return rows.flatten(1) if rows.dim() > 1 else rows[:, None]


class _Layers(NamedTuple):
    """The layers of M networks: weights of shape (M, D, H), and biases (M, 1, H)."""

    weights: list[torch.Tensor]
    biases: list[torch.Tensor]

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield weights and biases, layer by layer."""
        yield from zip(self.weights, self.biases, strict=True)

    def hidden(self, rows: torch.Tensor) -> torch.Tensor:
        """Map B rows to the inputs of the last layers: (M, B, H)."""
        values = rows.expand(len(self.weights[0]), -1, -1)
        for weights, biases in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = torch.relu(torch.baddbmm(biases, values, weights))
        return values

    def last(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map the inputs of the last layers to logits: (M, B, C)."""
        return torch.baddbmm(self.biases[-1], hidden, self.weights[-1])


def choose_decay(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    widths: Sequence[int],
    decays: Sequence[float],
    generator: torch.Generator,
) -> float:
    """Return the weight decay whose networks have the least loss out of bag; of equal ones the largest.

    Parameters
    ----------
    inputs, targets
        Float32, shape (n, D), and class codes, int64 (n,), or values, float32 (n, T).
    widths
        Of all layers, with that of the inputs and the number of classes or values.
    decays
        What to choose from; the only one is returned without a fit.
    generator
        Where the labels, weights and bootstrap samples are drawn from.
    """
    if len(decays) == 1:
        return decays[0]
    drawn = torch.randperm(len(inputs), generator=generator)[:_MOST_TO_CHOOSE].to(inputs.device)
    inputs, targets = inputs[drawn], targets[drawn]
    n = len(inputs)
    times = torch.stack([torch.randint(n, (n,), generator=generator).bincount(minlength=n) for _ in range(_BAGS)])
    times = times.to(inputs.device, torch.float32)
    descending = sorted(decays, reverse=True)
    of_networks = [decay for decay in descending for _ in range(_BAGS)]
    repeated = times.repeat(len(decays), 1)
    layers = _fitted(inputs, targets, widths, of_networks, generator, _STEPS_TO_CHOOSE, repeated, beginnings=_BAGS)
    left_out = (times == 0).float()  # (bags, n)
    judged = left_out.sum(dim=0) > 0
    if not bool(judged.any()):
        return descending[0]
    with torch.no_grad():
        outputs = layers.last(layers.hidden(inputs)).reshape(len(decays), _BAGS, n, widths[-1])
        if targets.is_floating_point():
            mean = (outputs * left_out[..., None]).sum(dim=1) / left_out.sum(dim=0)[:, None]
            losses = (mean - targets)[:, judged].square().mean(dim=(1, 2))
        else:
            of_target = outputs.softmax(-1)[:, :, torch.arange(n, device=inputs.device), targets]  # (decays, bags, n)
            mean = (of_target * left_out).sum(dim=1)[:, judged] / left_out.sum(dim=0)[judged]
            losses = -mean.clamp_min(torch.finfo(torch.float32).tiny).log().mean(dim=1)
    return descending[int(losses.argmin())]


def _noise(outputs: torch.Tensor, targets: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    """Return the variance of the noise of T values, by the residuals of labels at the members that left them out.

    Parameters
    ----------
    outputs
        Of all members for the n labels, shape (K, n, T).
    targets
        Shape (n, T).
    left_out
        Which member left out each label, shape (n,).
    """
    if len(targets) < 2:
        return torch.ones_like(targets[0])
    of_others = outputs[left_out, torch.arange(len(targets), device=targets.device)]
    errors = (of_others - targets).square().mean(dim=0)
    disagreement = outputs.var(dim=0, unbiased=False).mean(dim=0)
    return torch.maximum(errors - disagreement, _LEAST_NOISE * errors).clamp_min(1e-6)


def _fitted(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    widths: Sequence[int],
    decays: Sequence[float],
    generator: torch.Generator,
    steps: int,
    times: torch.Tensor | None = None,
    beginnings: int | None = None,
) -> _Layers:
    """Return networks that are fitted to n labels, one for each weight decay.

    With `times`, (M, n), a label counts so many times, of mean 1. The networks have so many beginnings, in turn; each
    has its own where it isn't given. A step has up to 256 labels.
    """
    n, networks = len(inputs), len(decays)
    beginnings = networks if beginnings is None else beginnings
    layers = _Layers([], [])
    for width, following in itertools.pairwise(widths):
        weights = torch.randn(beginnings, width, following, generator=generator) * math.sqrt(2 / width)
        layers.weights.append(weights.repeat(networks // beginnings, 1, 1).to(inputs.device).requires_grad_())
        layers.biases.append(torch.zeros(networks, 1, following, device=inputs.device, requires_grad=True))
    layers.weights[-1].data.mul_(_FIRST_OUTPUTS)
    strengths = torch.tensor(decays, device=inputs.device) / (2 * n)
    size = min(n, _BATCH)
    optimizer = torch.optim.Adam([*layers.weights, *layers.biases], lr=_LEARNING_RATE)
    for step, rows in zip(range(steps), _batches(n, size, generator), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP) * (1 - step / steps)
        rows = rows.to(inputs.device)
        losses = _losses(layers.last(layers.hidden(inputs[rows])), targets[rows])
        if times is not None:
            losses = losses * times[:, rows]
        squares = torch.stack([weights.square().sum(dim=(1, 2)) for weights in layers.weights]).sum(dim=0)
        optimizer.zero_grad()
        loss: torch.Tensor = losses.sum() / size + (strengths * squares).sum()
        torch.autograd.backward(loss)
        optimizer.step()
    for tensor in (*layers.weights, *layers.biases):
        tensor.requires_grad_(False)
    return layers


def _losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each label in each of M networks, (M, b): cross entropy, or half the square of residuals."""
    if targets.is_floating_point():
        return (outputs - targets).square().sum(dim=-1) / 2
    repeated = targets.repeat(len(outputs))
    losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), repeated, reduction="none")
    return losses.reshape(outputs.shape[:2])


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the places of batches without end; after each epoch the order is drawn anew, if there are several."""
    if size == n:
        while True:
            yield torch.arange(n)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from torch.split(order[: n - n % size], size)


def _zeros(members: int, widths: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for width, following in itertools.pairwise(widths):
        yield torch.zeros(members, width, following), torch.zeros(members, 1, following)
