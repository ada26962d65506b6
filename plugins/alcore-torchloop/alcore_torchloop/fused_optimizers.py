"""Steps of torch's SGD, Adam and AdamW on a CPU in fewer calls, with weights and state the same to the bit.

On a CPU torch does these steps parameter by parameter, and for a small model most of the time is overhead of looking up
settings and of the calls. Here each operation is one call for all parameters, which does the same operations in the
same order: ``torch._foreach_*`` has no kernels of its own on a CPU, and calls those of each tensor. A trial checks this
once for each optimizer and its settings; if results differ, the optimizer's own step is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim import optimizer as torch_optimizer

Update = Callable[[], None]

_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_GLOBAL_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
_OTHER_WAYS = ("foreach", "fused", "differentiable", "capturable", "amsgrad")
_ONE = torch.tensor(1.0)


class Ready(NamedTuple):
    """A parameter group whose step can be done directly."""

    group: Mapping[str, Any]
    parameters: list[torch.Tensor]
    gradients: list[torch.Tensor]
    states: list[dict[str, Any]]


def is_untouched(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer steps by its class's own step, with no hook."""
    hooks = _hooks_of(optimizer)
    return hooks is not None and not any(hooks) and _has_own_step(optimizer)


def update_of(optimizer: torch.optim.Optimizer, *, direct: bool = True) -> Update:
    """Return a function equivalent to ``optimizer.step()``, in fewer calls if that is wanted and possible."""

    def whole() -> None:
        optimizer.step()

    hooks, kind = _hooks_of(optimizer), _KINDS.get(type(optimizer))
    if not direct or kind is None or hooks is None or not _has_own_step(optimizer):
        return whole
    if not all(_is_plain(parameter) for group in optimizer.param_groups for parameter in group["params"]):
        return whole
    cls: Any = type(optimizer)
    if not all(_same_bits(cls, _options(group)) for group in optimizer.param_groups):
        return whole
    needs, apply = kind
    own_before, own_after, all_before, all_after = hooks
    sizes = [len(group["params"]) for group in optimizer.param_groups]

    def update() -> None:
        groups = optimizer.param_groups
        if own_before or own_after or all_before or all_after or sizes != [len(group["params"]) for group in groups]:
            optimizer.step()
            return
        ready = []
        for group in groups:
            if (ready_group := _ready(group, optimizer.state, needs)) is None:
                optimizer.step()
                return
            ready.append(ready_group)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # what a scheduler looks for
        with torch.no_grad():
            for ready_group in ready:
                apply(ready_group)

    return update


def _ready(group: dict[str, Any], states: Any, needs: str) -> Ready | None:
    """Return a group with its gradients and state, or None where its step is not like any other."""
    for way in _OTHER_WAYS:
        if group.get(way):
            return None
    if type(group["lr"]) is not float and type(group["lr"]) is not int:
        return None
    parameters = group["params"]
    gradients = [parameter.grad for parameter in parameters]
    for gradient in gradients:
        if gradient is None or gradient.is_sparse:
            return None
    if needs == "momentum_buffer" and not group["momentum"]:
        return Ready(group, parameters, gradients, [])
    own = [states[parameter] for parameter in parameters]
    for state in own:
        if state.get(needs) is None:  # before the first step
            return None
    return Ready(group, parameters, gradients, own)


def _sgd(ready: Ready) -> None:
    """Do as `torch.optim.SGD` does."""
    group, parameters, gradients, states = ready
    if group["maximize"]:
        gradients = list(torch._foreach_neg(gradients))
    if group["weight_decay"]:
        gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
    momentum = group["momentum"]
    if momentum:
        buffers = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients, alpha=1 - group["dampening"])
        gradients = list(torch._foreach_add(gradients, buffers, alpha=momentum)) if group["nesterov"] else buffers
    torch._foreach_add_(parameters, gradients, alpha=-group["lr"])


def _adam(ready: Ready, *, decoupled: bool) -> None:
    """Do as `torch.optim.Adam` and `torch.optim.AdamW` do (Kingma and Ba 2015; Loshchilov and Hutter 2019)."""
    group, parameters, gradients, states = ready
    rate, decay, (beta1, beta2) = group["lr"], group["weight_decay"], group["betas"]
    means = [state["exp_avg"] for state in states]
    squares = [state["exp_avg_sq"] for state in states]
    counters = [state["step"] for state in states]
    if group["maximize"]:
        gradients = list(torch._foreach_neg(gradients))
    torch._foreach_add_(counters, _ONE, alpha=1.0)
    if decay and (decoupled or group.get("decoupled_weight_decay")):
        torch._foreach_mul_(parameters, 1 - rate * decay)
    elif decay:
        gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
    counts = [counter.item() for counter in counters]
    roots = torch._foreach_sqrt(squares)
    if counts.count(counts[0]) == len(counts):
        torch._foreach_div_(roots, (1 - beta2 ** counts[0]) ** 0.5)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, means, roots, value=-(rate / (1 - beta1 ** counts[0])))
        return
    torch._foreach_div_(roots, [(1 - beta2**count) ** 0.5 for count in counts])
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_addcdiv_(parameters, means, roots, [-(rate / (1 - beta1**count)) for count in counts])


_KINDS: dict[type, tuple[str, Callable[[Ready], None]]] = {
    torch.optim.SGD: ("momentum_buffer", _sgd),
    torch.optim.Adam: ("exp_avg", functools.partial(_adam, decoupled=False)),
    torch.optim.AdamW: ("exp_avg", functools.partial(_adam, decoupled=True)),
}
_NAMES = ("momentum", "dampening", "weight_decay", "nesterov", "maximize", "betas", "eps")


def _options(group: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, group[name]) for name in _NAMES if name in group)


@functools.lru_cache(maxsize=64)
def _same_bits(cls: type, options: tuple[tuple[str, Any], ...]) -> bool:
    """Try a few steps of both ways on numbers of all kinds."""
    if any(
        isinstance(item, torch.Tensor) for _, value in options for item in (value if type(value) is tuple else [value])
    ):
        return False
    needs, apply = _KINDS[cls]
    for dtype in (torch.float32, torch.float64):
        shapes = [(5, 7), (33,), (), (1, 3, 2)]
        ours, theirs = ([_numbers(shape, i, dtype) for i, shape in enumerate(shapes)] for _ in range(2))
        fused, other = (cls([{"params": each}], lr=0.01, **dict(options)) for each in (ours, theirs))
        for step in range(4):
            for i, pair in enumerate(zip(ours, theirs, strict=True)):
                for parameter in pair:
                    parameter.grad = _numbers(parameter.shape, 10 * step + i + 1, dtype)
            ready = _ready(fused.param_groups[0], fused.state, needs)
            if ready is None:
                fused.step()
            else:
                with torch.no_grad():
                    apply(ready)
            other.step()
        if not all(map(torch.equal, ours, theirs)):
            return False
    return True


def _numbers(shape: Sequence[int], seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers of many magnitudes, without drawing from a generator."""
    angles = torch.arange(max(1, int(torch.Size(shape).numel())), dtype=torch.float64) * 1.7 + seed
    return (torch.sin(angles) * torch.exp(6 * torch.cos(3 * angles))).to(dtype).reshape(shape)


def _is_plain(parameter: torch.Tensor) -> bool:
    return (
        type(parameter) in (torch.Tensor, torch.nn.Parameter)
        and parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and parameter.layout is torch.strided
    )


def _hooks_of(optimizer: torch.optim.Optimizer) -> tuple[Any, Any, Any, Any] | None:
    """Return where the hooks of an optimizer are kept, and those of all; None where this torch keeps them elsewhere."""
    homes = [getattr(optimizer, name, None) for name in _HOOKS]
    homes += [getattr(torch_optimizer, name, None) for name in _GLOBAL_HOOKS]
    return None if any(home is None for home in homes) else (homes[0], homes[1], homes[2], homes[3])


def _has_own_step(optimizer: torch.optim.Optimizer) -> bool:
    step = vars(optimizer).get("step")
    return step is None or bool(getattr(step, "_wrapped_by_lr_sched", False))
