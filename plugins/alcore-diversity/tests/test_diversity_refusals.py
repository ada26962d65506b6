"""What strategies refuse, before step 0 where they can, and what the plugin offers."""

import pytest
import torch
from alcore_diversity import (
    BADGEQuery,
    ClassBalancedQuery,
    ClusterMarginQuery,
    InformationDensityQuery,
    KCenterQuery,
    ProbCoverQuery,
    StratifiedQuery,
    StratifiedStart,
    TypiClustQuery,
)
from alcore_testing import build_driver, toy_pool

from alcore import TensorPool, UsageError, plugins
from alcore.errors import QueryError

STRATEGIES = {
    "kcenter": KCenterQuery,
    "badge": BADGEQuery,
    "typiclust": TypiClustQuery,
    "probcover": ProbCoverQuery,
    "cluster-margin": ClusterMarginQuery,
    "density": InformationDensityQuery,
    "class-balanced": ClassBalancedQuery,
    "stratified": StratifiedQuery,
    "stratified-start": StratifiedStart,
}


@pytest.mark.parametrize("name", ["kcenter", "typiclust", "probcover", "cluster-margin", "badge", "density"])
def test_a_learner_without_the_layer_is_refused_before_step_0(name, tmp_path):
    driver = build_driver(tmp_path, STRATEGIES[name](3, layer="encodr"))
    with pytest.raises(UsageError, match="no layer 'encodr'"):
        driver.run()


def test_a_start_without_answers_is_refused_before_step_0(tmp_path):
    driver = build_driver(
        tmp_path, StratifiedStart(3), pool=TensorPool(torch.zeros(9, 4)), skip_labeling=True, skip_training=True
    )
    with pytest.raises(UsageError, match=r"TensorPool doesn't know those of unlabeled samples.*use random"):
        driver.run()
    pool = TensorPool(torch.zeros(9, 4), torch.zeros(9, 2).long())
    driver = build_driver(tmp_path, StratifiedStart(3), pool=pool, skip_training=True)
    with pytest.raises(UsageError, match=r"answer of sample 0 has shape \(2,\)"):
        driver.run()


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "stratified-start"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_nan_is_an_error_that_names_the_sample(name, bad, tmp_path):
    inputs = torch.randn(40, 4)
    inputs[31, 1] = bad
    driver = build_driver(tmp_path, STRATEGIES[name](3), pool=toy_pool(inputs=inputs), skip_training=True)
    with pytest.raises(QueryError, match=r"of sample 31 are (not finite|NaN or infinite)"):
        driver.run()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KCenterQuery(-1), "max_samples is -1"),
        (lambda: StratifiedStart(-1), "max_samples is -1"),
        (lambda: KCenterQuery(candidates=0), "candidates is 0"),
        (lambda: TypiClustQuery(neighbors=0), "neighbors is 0; it must be at least 1"),
        (lambda: ProbCoverQuery(delta=-1.0), "delta is -1.0"),
        (lambda: ProbCoverQuery(purity=0.0), "purity is 0.0"),
        (lambda: ClusterMarginQuery(shortlist=0.5), "shortlist is 0.5; it must be a number of at least 1"),
        (lambda: ClusterMarginQuery(threshold=-0.5), "threshold is -0.5"),
        (lambda: InformationDensityQuery(beta=-0.1), "beta is -0.1"),
        (lambda: InformationDensityQuery(similarity="cosin"), "similarity is 'cosin'; did you mean 'cosine'"),
        (lambda: InformationDensityQuery(uncertainty="entropie"), "uncertainty is 'entropie'; did you mean 'entropy'"),
        (lambda: ClassBalancedQuery(uncertainty="margins"), "did you mean 'margin'"),
        (lambda: StratifiedQuery(strata="class"), "strata is 'class'"),
        (lambda: StratifiedQuery(allocation="equall"), "did you mean 'equal'"),
        (lambda: StratifiedQuery(clusters=0), "clusters is 0; it must be at least 1"),
    ],
)
def test_bad_parameters(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_plugin_offers_its_parts_by_name():
    import alcore_diversity

    for name, strategy in STRATEGIES.items():
        made = plugins.installed().make("query", name, max_samples=3)
        assert type(made) is strategy
        assert made.max_samples == 3
    assert set(alcore_diversity.__all__) == {strategy.__name__ for strategy in STRATEGIES.values()}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alcore_diversity.nothing
