"""Cheap estimates of the uncertainty measures with bounds of their error, so that few samples are scored exactly.

An estimate is the measure in float32, of d = logit / temperature with |d| <= h, or of that less its row's largest. Let
u = 2^-24. Then d is known to 2u|d|, w = exp(d) to (2h + 2)u relative, the sum s of w over C classes to (2h + 2 + C)u
relative, and the sum t of w d to (2h + 5 + C)u h s. That makes quotients of w and s, such as the margin, known to
(4h + C + 6)u, and entropy = ln s - t / s to (4h^2 + 2Ch + 11h + C + ln C + 2)u. The returned error is up to twice
that bound.
"""

from __future__ import annotations

import torch

from alcore.outputs import top_two

_DEEPEST = -87.0  # exp of less is subnormal in single precision, which is slow; it is far below u
_NARROW = 40.0  # exp of this and of its negative is well inside the range of single precision


def estimate(measure: str, outputs: torch.Tensor, temperature: float) -> tuple[torch.Tensor, float] | None:
    """Return a measure in single precision, and an upper bound of its error.

    Parameters
    ----------
    measure
        ``"least_confidence"``, ``"margin"`` or ``"entropy"``.
    outputs
        Class logits, (B, C).
    temperature
        Logits are divided by this.

    Returns
    -------
    tuple or None
        Float32 (B,), NaN where the measure is NaN, and the error. None for other outputs, and for
        double precision.
    """
    short = outputs.dtype in (torch.float32, torch.float16, torch.bfloat16)
    if not short or outputs.dim() != 2 or outputs.shape[1] < 2:
        return None
    classes, logits = outputs.shape[1], outputs.float()
    reach = max(abs(float(end)) for end in torch.aminmax(logits)) / temperature
    if not reach <= _NARROW:
        logits = (logits - logits.amax(dim=1, keepdim=True)).clamp_(min=_DEEPEST * temperature)
        reach = -_DEEPEST
    scaled = logits if temperature == 1 else logits / temperature
    weights = scaled.exp()
    ones = weights.new_ones(classes)
    total = weights.mv(ones)  # the product with ones is the fastest sum over a short last axis
    if measure == "entropy":
        rough = total.log().sub_(weights.mul_(scaled).mv(ones).div_(total))
    elif measure == "least_confidence":
        rough = 1 - weights.amax(dim=1) / total
    else:
        first, second = top_two(weights.t().contiguous())
        rough = (second - first) / total
    error = (4 * reach + classes + 8) * 2.0**-23
    return rough, error * (reach + 1) if measure == "entropy" else error
