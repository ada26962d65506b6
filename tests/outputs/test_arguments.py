"""Measures and everything else that maps outputs: they come back as they were, bit by bit, in any precision."""

import inspect

import pytest
import torch
from alcore_testing.watch import Unwritten

from alcore import inference, outputs
from alcore.inference import TopK, merge, per_cost
from alcore.outputs import (
    bald,
    by_position,
    class_probabilities,
    default_loss,
    entropy,
    expected_entropy,
    first_rows,
    halves,
    least_confidence,
    margin,
    match_targets,
    mean_and_variance,
    mean_std,
    means_of,
    plogp,
    posterior_probabilities,
    predicted_classes,
    reduce_map,
    top_two,
    variation_ratio,
    vote_entropy,
)
from alcore.outputs.kinds import binary_logits, take_rows

ONE, COLUMN, CLASSES, TWO = (70,), (70, 1), (70, 5), (70, 2)
POSTERIOR, POSTERIOR_COLUMN = (4, 70, 5), (4, 70, 1)
ANY = [ONE, COLUMN, CLASSES, TWO, POSTERIOR, POSTERIOR_COLUMN]
SEVERAL = [POSTERIOR, POSTERIOR_COLUMN, (4, 70)]


def ranked(scores):
    best = TopK(3)
    best.add(torch.arange(len(scores)), scores)
    best.add(torch.arange(len(scores), 2 * len(scores)), scores)
    return merge([best.result(), best.result()], 3)


def loss(outputs, kind, task="classification", weights=()):
    targets = torch.arange(70) % 2
    return default_loss(task, kind, weights)(lambda inputs: inputs, (outputs, targets))


# What is called with outputs and their kind, and the shapes that it takes
FUNCTIONS = {
    **{
        f"{measure.__name__}-{temperature}": (lambda o, k, m=measure, t=temperature: m(o, k, t), ANY)
        for measure in (least_confidence, margin, entropy)
        for temperature in (1.0, 2.0)
    },
    **{
        f"{measure.__name__}-{top}": (lambda o, k, m=measure, t=top: m(o, k, top=t), SEVERAL)
        for measure in (bald, expected_entropy, mean_std, variation_ratio)
        for top in (None, 3)
    },
    "variation_ratio-of-mean": (lambda o, k: variation_ratio(o, k, "mean", top=3), SEVERAL),
    "vote_entropy": (vote_entropy, SEVERAL),
    "posterior_probabilities": (posterior_probabilities, SEVERAL),
    "class_probabilities": (class_probabilities, ANY),
    "predicted_classes": (predicted_classes, ANY),
    "binary_logits": (binary_logits, [ONE, COLUMN]),
    "by_position": (by_position, [(7, 5, 2, 2), (7, 1, 2, 2)]),
    "reduce_map": (lambda o, k: [reduce_map(o, how) for how in ("mean", "max", "sum")], [(7, 2, 2)]),
    "top_two": (lambda o, k: top_two(o), [CLASSES, COLUMN]),
    "plogp": (lambda o, k: plogp(o), [CLASSES]),
    "first_rows": (lambda o, k: first_rows(o, 9, 70), [CLASSES, POSTERIOR]),
    "take_rows": (lambda o, k: take_rows(o, torch.arange(9)), [CLASSES, POSTERIOR]),
    "TopK": (lambda o, k: ranked(o), [ONE]),
    "per_cost": (lambda o, k: per_cost(o, torch.arange(70.0)), [ONE]),
    "match_targets": (lambda o, k: match_targets(o, torch.zeros(len(o), 1)), [ONE, COLUMN]),
    "halves": (lambda o, k: halves(o), [TWO, (4, 70, 6), (7, 2, 2, 2)]),
    "means_of": (lambda o, k: means_of(o, "mean-variance"), [TWO, (4, 70, 6)]),
    "mean_and_variance": (lambda o, k: mean_and_variance(o, "mean-variance"), [TWO, (4, 70, 6)]),
    "mean_and_variance-values": (lambda o, k: mean_and_variance(o, "values"), [POSTERIOR]),
    "default_loss": (loss, [ONE, COLUMN, TWO]),
    "default_loss-weighted": (lambda o, k: loss(o, k, weights=(1.0, 2.0)), [ONE, COLUMN, TWO]),
    "default_loss-regression": (lambda o, k: loss(o, "values", "regression"), [ONE, COLUMN]),
    "default_loss-variance": (lambda o, k: loss(o, "mean-variance", "regression"), [TWO]),
}


def outputs_in(dtype, kind, shape):
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if kind == "logits":
        return drawn.mul(9).sub(4).to(dtype)
    return (drawn if len(shape) == 1 or shape[-1] == 1 else drawn / drawn.sum(dim=-1, keepdim=True)).to(dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_outputs_come_back_as_they_were(name, dtype):
    function, shapes = FUNCTIONS[name]
    for kind in ("logits", "probabilities"):
        for shape in shapes:
            unwritten = Unwritten()
            function(unwritten.given("outputs", outputs_in(dtype, kind, shape)), kind)
            unwritten.check()


def test_every_public_function_of_outputs_is_among_them():
    takes_outputs = {
        name
        for word in (outputs, inference)
        for name in word.__all__
        if inspect.isfunction(function := getattr(word, name))
        and {"outputs", "scores", "rows", "p"} & {*list(inspect.signature(function).parameters)[:1]}
    }
    checks = {name for name in takes_outputs if name.startswith(("check_", "is_"))}  # they read shapes alone
    assert takes_outputs - checks == {name.partition("-")[0] for name in FUNCTIONS} & takes_outputs
