"""Comparisons of curves that are known."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from alcore_report import compare_curves
from alcore_report.curves import Curve, Found, curves_of_table, lower_is_better, write_table
from alcore_report.plots import draw, spread
from alcore_report.text import as_text
from alcore_testing import run_command

from alcore import UsageError

X = np.arange(50.0, 251.0, 50.0)


def arm(name, seeds, lift=0.0, *, noise=0.01, price=1.0, metric="f1", start=0.4, jitter=0):
    """Curves that rise by 0.1 a step from `start`, and `lift` higher from the second point on."""
    curves = []
    for seed in seeds:
        rng = np.random.default_rng([seed, len(name), jitter])
        values = start + np.arange(5) * 0.1 + np.array([0, 1, 1, 1, 1]) * (lift + rng.normal(0, noise))
        curves.append(Curve(name, seed, X, (X - 50) * price, {metric: values}, f"{name}-{seed}"))
    return curves


def verdict(*arms, name="uq", **options):
    return compare_curves(Found([curve for group in arms for curve in group]), **options).axes[0].verdicts[name]


def test_an_arm_that_is_higher_on_each_seed_is_better():
    judged = verdict(arm("random", range(8)), arm("uq", range(8), 0.1))
    assert judged.outcome == "better"
    assert judged.p == 2 / 2**8
    # a lift of 0.1 from the second point on: half of the first of four intervals
    assert judged.difference.value == pytest.approx(0.1 * 3.5 / 4, abs=0.01)
    assert judged.difference.low < 0.1 * 3.5 / 4 < judged.difference.high
    assert judged.sentence.startswith("uq is better than random: in a typical seed its mean f1 along the curve is 0.08")
    assert "8 seeds" in judged.sentence


def test_an_arm_that_is_lower_is_said_to_be_worse_than_random():
    judged = verdict(arm("random", range(8)), arm("uq", range(8), -0.1))
    assert judged.outcome == "worse"
    assert judged.sentence.startswith("uq is worse than random: in a typical seed its mean f1 along the curve is 0.")
    assert " lower (" in judged.sentence


@pytest.mark.parametrize(("metric", "outcome"), [("rmse", "worse"), ("f1_metrology.f1", "better")])
def test_the_direction_of_a_metric_is_known_by_its_name(metric, outcome):
    arms = [arm("random", range(8), metric=metric), arm("uq", range(8), 0.1, metric=metric)]
    assert verdict(*arms).outcome == outcome
    assert verdict(*arms, lower=outcome == "better").outcome != outcome


@pytest.mark.parametrize("name", ["rmse", "regression.rmse", "loss", "log_loss", "max_error", "brier", "nll", "mae"])
def test_metrics_that_are_better_the_lower(name):
    assert lower_is_better(name)


@pytest.mark.parametrize("name", ["f1", "accuracy", "r2", "auroc", "precision", "average_precision", "spearman"])
def test_metrics_that_are_better_the_higher(name):
    assert not lower_is_better(name)


@pytest.mark.parametrize(("seeds", "others"), [(5, 1), (6, 2), (7, 3)])
def test_too_few_seeds_to_tell_however_clear_the_curves_are(seeds, others):
    arms = [arm("random", range(seeds)), *(arm(f"uq{i}", range(seeds), 0.3) for i in range(others))]
    judged = verdict(*arms, name="uq0")
    assert judged.outcome == "too few seeds"
    assert judged.sentence.startswith("Too few seeds to tell whether uq0 is better than random")
    assert f"{seeds + 1} seeds are needed at least" in judged.sentence
    arms = [arm("random", range(seeds + 1)), *(arm(f"uq{i}", range(seeds + 1), 0.3) for i in range(others))]
    assert verdict(*arms, name="uq0").outcome == "better"


def test_without_significance_the_verdict_says_what_would_have_been_found():
    arms = [arm("random", range(10), noise=0.02), arm("uq", range(10), noise=0.02, jitter=1)]
    assert "finds in 80% of 4000" in as_text(compare_curves(Found([*arms[0], *arms[1]])))
    judged = verdict(*arms)
    assert judged.outcome == "no difference found"
    assert judged.detectable is not None
    assert judged.sentence.startswith("No difference found between uq and random (p = ")
    said = re.search(
        r"a difference between ([\d.]+) and ([\d.]+) would have been found with power 0.8", judged.sentence
    )
    assert said is not None
    assert (float(said[1]), float(said[2])) == pytest.approx(judged.detectable[1:], rel=0.1)


def test_equal_curves_differ_in_nothing():
    same = [Curve("uq", c.seed, c.labels, c.cost, c.values, c.source) for c in arm("random", range(8))]
    assert "the same area" in verdict(arm("random", range(8)), same).sentence


def test_seeds_that_only_one_arm_has_are_not_tested():
    judged = verdict(arm("random", range(10)), arm("uq", range(2, 9), 0.1))
    assert judged.seeds == 7
    assert judged.p == 2 / 2**7


def test_labels_to_close_the_gap_are_those_of_the_mean_curve():
    lifts = {"random": 0.0, "uq": 0.1, "ceiling": 0.4}
    comparison = compare_curves(Found([curve for name in lifts for curve in arm(name, range(4), lifts[name], noise=0)]))
    axis = comparison.axes[0]
    # from 0.4 to 1.2: the curve of random is 0.4 + (x - 50) / 500, that of uq 0.6 at 100 and as steep from there
    assert (axis.gap.start, axis.gap.ceiling, axis.gap.measured) == (pytest.approx(0.4), pytest.approx(1.2), True)
    half, most = axis.targets["uq"][0], axis.targets["random"][1]
    assert half.height == pytest.approx(0.8)
    assert half.reached.labels == pytest.approx((200, 200, 200))
    assert half.saved == pytest.approx((50, 50, 50))
    assert math.isinf(most.reached.labels.value)
    assert (most.reached.seeds, most.reached.share) == (0, 0.0)
    text = as_text(comparison)
    assert "to 1.200, the ceiling" in text
    assert "> 250: not reached by then" in text


def test_without_a_ceiling_the_best_final_mean_takes_its_place_and_is_named():
    comparison = compare_curves(Found([*arm("random", range(3)), *arm("uq", range(3), 0.1)]))
    assert comparison.axes[0].gap.of == "uq"
    assert "the best final mean (uq; there is no ceiling)" in as_text(comparison)
    comparison = compare_curves(Found([*arm("random", range(7)), *arm("uq", range(7), 0.1)]))
    assert "of the gap to the best final mean" in comparison.axes[0].verdicts["uq"].sentence


def test_a_ceiling_below_the_start_leaves_no_gap():
    comparison = compare_curves(Found([*arm("random", range(3)), *arm("ceiling", range(3), start=-0.5)]))
    assert comparison.axes[0].gap is None
    assert "no gap to close" in as_text(comparison)


def test_without_a_ceiling_that_does_not_exist_is_not_spoken_of():
    falling = compare_curves(Found([Curve("uq", 0, X, None, {"f1": np.linspace(0.9, 0.5, 5)}, "uq-0")]))
    assert falling.axes[0].gap is None
    text = as_text(falling)
    assert "The best final mean is not better than the start (at 50 labels)" in text
    assert "ceiling" not in text
    low = compare_curves(Found([*arm("random", range(3)), *arm("ceiling", range(3), start=-0.5)]))
    assert "The ceiling is not better than the start (at 50 labels)" in as_text(low)


def test_start_is_where_all_curves_begin():
    late = [Curve("uq", c.seed, c.labels[2:], None, {"f1": c.values["f1"][2:]}, "") for c in arm("uq", range(3))]
    text = as_text(compare_curves(Found([*arm("random", range(3)), *late])))
    assert "(at 150 labels)" in text
    assert "step 0" not in text


def test_of_one_arm_no_saving_is_spoken_of():
    alone = as_text(compare_curves(Found([*arm("uq", range(3)), *arm("ceiling", range(3), 0.9)])))
    assert "> 250: not reached by then." in alone
    assert "saved" not in alone


def of_areas(name, areas, seeds=None):
    """Curves of two places, whose areas under the curve are these."""
    return [
        Curve(name, seed, X[:2], None, {"f1": np.array([area, area])}, f"{name}-{seed}")
        for seed, area in zip(seeds or range(len(areas)), areas, strict=True)
    ]


def test_an_arm_is_only_said_not_to_get_there_by_the_last_shared_place():
    short = [Curve("uq", c.seed, c.labels[:3], None, {"f1": c.values["f1"][:3]}, "") for c in arm("uq", range(8), 0.3)]
    judged = verdict(arm("random", range(8)), short)  # random gets to 0.8 at 250 labels, and uq ends at 150
    assert judged.sentence.endswith("random does not get there by 150 labels.")


def test_one_seed_that_fails_does_not_turn_the_verdict_and_is_named():
    differences = [*np.linspace(0.01, 0.02, 19).tolist(), -1.0]
    judged = verdict(of_areas("random", [0.0] * 20), of_areas("uq", differences), lower=False)
    assert np.mean(differences) < 0
    assert judged.outcome == "better"
    assert 0.01 < judged.difference.low < judged.difference.value < judged.difference.high < 0.02
    assert judged.far == ((19, -1.0),)
    assert "in a typical seed its mean f1 along the curve is 0.0147 higher" in judged.sentence
    assert "Far from the others is seed 19 (1.00 lower than random): look at uq there." in judged.sentence
    assert "mean f1 along the curve is" not in judged.sentence.replace("in a typical seed its mean f1", "")


def test_seed_that_fails_is_named_where_nothing_is_found():
    judged = verdict(of_areas("random", [0.0] * 8), of_areas("uq", [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.9, -0.8]))
    assert judged.outcome == "no difference found"
    assert judged.sentence.endswith(
        "Far from the others are seeds 6 (0.900 lower than random) and 7 (0.800 lower than random): look at uq there."
    )


def test_difference_at_a_few_seeds_alone_is_said_to_be_there():
    judged = verdict(of_areas("random", [0.0] * 21), of_areas("uq", [0.0] * 15 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert (judged.outcome, judged.difference.value) == ("better", 0)
    assert "uq is better than random at the 6 of 21 seeds at which their curves differ" in judged.sentence


def test_look_at_more_seeds_needs_more_than_a_first_one():
    differences = np.random.default_rng(4).normal(0.05, 0.1, 16)
    curves = [*of_areas("random", [0.0] * 16), *of_areas("uq", differences)]
    (first, again) = (
        compare_curves(Found(curves, looks=looks)).axes[0].verdicts["uq"]
        for looks in ({}, {"uq": [list(range(8)), list(range(8))], "badge": [[1]]})
    )
    assert (first.looks, again.looks) == ((16,), (8, 16))
    assert first.p == again.p
    assert first.adjusted_p < again.adjusted_p
    assert "16 seeds after a look at 8" in again.sentence
    assert "look" not in first.sentence.partition("Far")[0]


def test_seeds_that_are_needed_are_those_beside_the_other_arms():
    arms = [arm("random", range(20)), arm("uq", range(5), 0.1), arm("badge", range(20), 0.2)]
    judged = verdict(*arms)
    assert judged.outcome == "too few seeds"
    assert "6 seeds are needed at least" in judged.sentence
    arms[1] = arm("uq", range(6), 0.1)
    assert verdict(*arms).outcome == "better"


def test_seeds_that_are_shared_are_told_from_those_that_an_arm_has():
    judged = verdict(arm("random", range(10)), arm("uq", range(8, 18), 0.1))
    assert "with 2 seeds in common no p below" in judged.sentence


def test_a_difference_that_nothing_could_find_is_not_named():
    same = [0.1] * 6
    arms = [of_areas("random", [0.0] * 20), of_areas("uq", same), of_areas("badge", [0.1, -0.1] * 10)]
    comparison = compare_curves(Found([curve for group in arms for curve in group]))
    judged = comparison.axes[0].verdicts["uq"]
    assert (judged.outcome, judged.detectable) == ("no difference found", None)
    assert "which difference would have been found can't be told of these seeds" in judged.sentence
    assert "inf" not in as_text(comparison)


def test_curves_are_compared_over_cost_where_costs_differ():
    cheap = compare_curves(Found([*arm("random", range(7)), *arm("uq", range(7), 0.05)]))
    assert [axis.name for axis in cheap.axes] == ["labels"]
    dear = compare_curves(Found([*arm("random", range(7)), *arm("uq", range(7), 0.05, price=3.0)]))
    over_labels, over_cost = dear.axes
    assert over_cost.x[-1] == 200  # where the cheaper curve ends
    assert over_labels.verdicts["uq"].outcome == "better"
    assert over_cost.verdicts["uq"].outcome == "worse"
    assert "Over cost: uq is worse than random" in as_text(dear)


def test_curves_of_other_places_are_compared_where_both_are():
    short = [
        Curve("uq", c.seed, c.labels[1:4], c.cost[1:4], {"f1": c.values["f1"][1:4]}, "") for c in arm("u", range(3))
    ]
    axis = compare_curves(Found([*arm("random", range(3)), *short])).axes[0]
    assert axis.x.tolist() == [100, 150, 200]


def test_a_run_without_the_metric_is_left_out_and_told():
    broken = Curve("uq", 9, X, None, {"f1": np.array([0.1, np.inf, 0.2, 0.3, 0.4])}, "run uq-9")
    comparison = compare_curves(Found([*arm("random", range(3)), broken]))
    assert comparison.left_out == [("run uq-9", "f1 is infinite at [100.0]")]


def test_arms_that_began_from_other_data_are_noted():
    curves = [
        Curve(a, s, X, None, {"f1": X / 300}, "", (), data)
        for a, data in (("uq", "a"), ("random", "b"))
        for s in (0, 1)
    ]
    (note,) = compare_curves(Found(curves)).notes
    assert "uq and random did not begin from the same data and labels at seed 0, 1" in note


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "curves.csv"
    write_table([*arm("random", range(7)), *arm("uq", range(7), 0.1), *arm("ceiling", range(7), 0.3)], path)
    return path


def test_a_table_that_was_written_reads_as_it_was(table, tmp_path):
    again = tmp_path / "again.csv"
    write_table(curves_of_table(table), again)
    assert again.read_text() == table.read_text()
    assert len(curves_of_table(again)) == 21


def test_compare_reads_a_table_of_another_tool_and_its_outputs_agree(table, tmp_path):
    done = run_command(tmp_path, "compare", "curves.csv", "--json", "--csv", "out.csv", "--plot", "out.svg")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    comparison = compare_curves(Found(curves_of_table(table)))
    (axis,) = result["axes"]
    assert axis["arms"]["uq"]["mean"] == pytest.approx(comparison.axes[0].arms["uq"].values.mean(axis=0).tolist())
    assert axis["verdicts"]["uq"]["sentence"] == comparison.axes[0].verdicts["uq"].sentence
    assert result["ceiling"]["value"] == pytest.approx(comparison.ceiling.value)
    assert (tmp_path / "out.csv").read_text() == table.read_text()
    text = run_command(tmp_path, "compare", "out.csv")
    assert text.out.strip().endswith(comparison.axes[0].verdicts["uq"].sentence)
    words = {
        "".join(element.itertext())
        for element in ElementTree.parse(tmp_path / "out.svg").iter()
        if element.tag.endswith("text")
    }
    assert {"uq", "random", "ceiling, 250 labels", "labeled samples", "f1 (higher is better)"} <= words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("arm,seeds,labels,f1\na,0,1,2\n", "has no column 'seed': did you mean 'seeds'?"),
        ("arm,seed,labels,f1\na,0,1,x\n", "line 2: f1 is 'x', which is not a number"),
        ("arm,seed,labels,f1\na,0.5,1,2\n", "line 2: seed is '0.5', which is not a whole number"),
        ("arm,seed,labels,f1\na,0,,2\n", "line 2: labels is '', which is not a number"),
        ("arm,seed,labels\na,0,1\n", "has no column of a metric"),
        ("arm,seed,labels,f1\n", "has no line below its header"),
    ],
)
def test_a_table_that_is_wrong_is_refused_where_it_is(tmp_path, content, message):
    (tmp_path / "bad.csv").write_text(content)
    done = run_command(tmp_path, "compare", "bad.csv")
    assert done.code == 2
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "f2"], "--metric f2: it was not measured: did you mean 'f1'?"),
        (["--baseline", "rndom"], "--baseline rndom: there is no such arm: did you mean 'random'?"),
        (["--plot", "x.pdf"], "a picture is written as .png or .svg; name it x.png"),
        (["curves.csv"], "are both of arm random and seed 0"),
        (["nowhere"], "there is no run 'nowhere'"),
        (["--csv", "no/such/folder.csv"], "can't be written: No such file or directory"),
    ],
)
def test_wrong_words_are_refused_with_the_remedy(table, words, message):
    done = run_command(table.parent, "compare", "curves.csv", *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_a_picture_tells_arms_apart_without_color(tmp_path):
    arms = [curve for place in range(6) for curve in arm(f"arm {place}", range(2), place / 100)]
    draw(compare_curves(Found([*arms, *arm("random", range(2))])), tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    dashes = set(re.findall(r"stroke-dasharray: ([\d. ,]+)", text))
    assert len(dashes) >= 6  # the seventh is solid
    draw(compare_curves(Found(arms)), tmp_path / "again.svg")
    draw(compare_curves(Found(arms)), tmp_path / "curves.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "curves.svg").read_bytes()


def test_spread_keeps_order_and_distance():
    heights = spread([0.1, 0.5, 0.51, 0.52, 0.9], 0.05)
    assert heights == pytest.approx([0.1, 0.46, 0.51, 0.56, 0.9])
    assert min(np.diff(spread([0.0] * 5, 0.1))) == pytest.approx(0.1)


def test_nothing_to_compare_says_why():
    with pytest.raises(UsageError, match=r"there is no finished run to compare:\n- uq-0: it is failed"):
        compare_curves(Found([], [("uq-0", "it is failed")]))
