"""An ensemble of learners, whose outputs are posterior samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from alcore import plugins
from alcore.errors import UsageError
from alcore.outputs import default_loss, halves, is_map, kind_of
from alcore.pools import DataInfo
from alcore.randomness import derive_seed, preserve_rng_state, seed_everything


class Ensemble(torch.nn.Module):
    """Learners that are trained together; it returns the outputs of each.

    Parameters
    ----------
    members
        At least two modules with the same form of outputs: (B,), (B, 1) or (B, C); of a regression also fields
        (B, 2 C, ...) of means and variances.
    task
        ``"classification"`` or ``"regression"``: the default loss of a member without a ``training_step``.

    Attributes
    ----------
    outputs : str
        The kind of the members' outputs: ``"logits"`` or ``"probabilities"``, of a regression ``"values"`` or
        ``"mean-variance"``.

    Notes
    -----
    All members see the same batches, and differ by their initial weights (no bootstrap), as in deep ensembles.
    Time and memory: K times those of a member.

    Fields of means and variances are pooled: the outputs are mean and variance of the mixture of the members, in the
    shape of a member's, ``1/K sum_k v_k + 1/K sum_k (m_k - m)^2``. Others come member by member, and
    `alcore.outputs.mean_and_variance` does the same with them.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
    ensembles, NeurIPS; Beluch, Genewein, Nurnberger and Kohler (2018), The power of ensembles for active learning in
    image classification, CVPR.
    """

    def __init__(self, members: Sequence[torch.nn.Module], task: str = "classification") -> None:
        super().__init__()
        if len(members) < 2:
            raise UsageError(f"an ensemble of {len(members)} can't disagree; it needs at least 2 members.")
        kinds = {kind_of(member, task) for member in members}
        if len(kinds) > 1:
            raise UsageError(
                f"some members of the ensemble return {' and some '.join(sorted(kinds))}; all must return the same."
            )
        self.members = torch.nn.ModuleList(members)
        self.outputs = kinds.pop()
        self._default_loss = default_loss(task, self.outputs)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Map inputs of B samples to the outputs of all K members: (K, B, C), or (K, B, 1) for one column.

        Fields of means and variances are pooled: (B, 2 C, ...).
        """
        outputs = [member(inputs) for member in self.members]
        if self.outputs == "mean-variance" and all(map(is_map, outputs)):
            means, variances = map(torch.stack, zip(*map(halves, outputs), strict=True))
            return torch.cat([means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)], dim=1)
        for output in outputs:
            if not isinstance(output, torch.Tensor) or output.dim() not in (1, 2):
                what = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
                raise UsageError(f"a member of the ensemble returned {what}; it must return (B,), (B, 1) or (B, C).")
        return torch.stack([output[:, None] if output.dim() == 1 else output for output in outputs])

    def begin_training(self, batches: Iterable[Any]) -> None:
        """Let the members that have the method look at the labeled items before they are trained on them."""
        for member in self.members:
            own = getattr(member, "begin_training", None)
            if callable(own):
                own(batches)

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the mean of the members' losses, whose gradient is that of their sum.

        So each member is trained as it would be alone with the same learning rate, for any number of members.
        """
        return self._loss("training_step", batch)

    def validation_step(self, batch: Any) -> torch.Tensor:
        """Return the mean of the members' losses."""
        return self._loss("validation_step", batch)

    def _loss(self, step: str, batch: Any) -> torch.Tensor:
        total = torch.stack([self._step(member, step)(batch) for member in self.members]).sum()
        return total - (total - total / len(self.members)).detach()

    def _step(self, member: Any, step: str) -> Callable[[Any], torch.Tensor]:
        own = getattr(member, step, None)
        return own if callable(own) else lambda batch: self._default_loss(member, batch)


def ensemble(
    info: DataInfo, learner: str = "mlp", members: int = 5, parameters: dict[str, Any] | None = None
) -> Ensemble:
    """Return an ensemble of learners with different initial weights.

    Parameters
    ----------
    info
        What is known about the data; it is passed on to the members.
    learner
        Name of the members' learner, one that ``alcore plugins`` lists.
    members
        Number of members, K.
    parameters
        Parameters of each member, by name, as in a table ``[learner.NAME]``.

    Raises
    ------
    UsageError
        If there is no such learner, a parameter is wrong, or the learner is not a `torch.nn.Module`.

    Notes
    -----
    One number is drawn from torch's global generator, and the weights of member k depend on it and on k.
    """
    if members < 2:
        raise UsageError(f"learner ensemble: members is {members}; at least 2 are needed, since one can't disagree.")
    if learner == "ensemble":
        raise UsageError("learner ensemble: its members can't be ensembles; name another learner (alcore plugins).")
    factory = plugins.load_factory(plugins.installed().offer("learner", learner))
    values, faults = plugins.validate(factory, parameters or {}, "learner.ensemble.parameters")
    if faults:
        raise UsageError("; ".join(faults) + ".")
    if plugins.accepts(factory, "info"):
        values["info"] = info
    seed = int(torch.randint(2**62, ()))
    made = []
    with preserve_rng_state():
        for k in range(members):
            seed_everything(derive_seed(seed, "member", k))
            member = factory(**values)
            if not isinstance(member, torch.nn.Module):
                raise UsageError(
                    f"learner ensemble: {learner} makes a {type(member).__name__}, which is not a torch.nn.Module, so "
                    "it can't be trained together with others; name a learner that is one."
                )
            made.append(member)
    return Ensemble(made, info.task)
