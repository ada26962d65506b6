"""Each strategy, in single and in double precision: its picks are those of its definition, computed plainly."""

import itertools
import math
import operator

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
from alcore_diversity.clusters import k_means
from alcore_testing import ALL_OUTPUTS, ALL_TASKS, assert_best_first
from alcore_testing.query import QueryEffects, QueryOracle, QueryPending, QueryRuns
from sklearn.cluster import AgglomerativeClustering

from alcore.inference import extract_features, labeled_features
from alcore.outputs import kind_of

TENSORS = tuple(outputs for outputs in ALL_OUTPUTS if outputs != "mapping")


# -- what the definitions are made of, one sample at a time --------------------------------------------------------


def rows_of(driver, candidates, layer=""):
    """Features by id, and those of labeled and pending samples: lists of Python floats."""
    features = extract_features(driver, torch.tensor(candidates), layer)
    centers = [*labeled_features(driver, layer).features.tolist(), *pending_rows(driver, layer)]
    return dict(zip(candidates, features.features.tolist(), strict=True)), centers


def pending_rows(driver, layer=""):
    return extract_features(driver, driver.pending(), layer).features.tolist() if len(driver.pending()) else []


def probabilities_of(driver, candidates):
    """Class probabilities by id, of two classes at least: lists of Python floats."""
    outputs = extract_features(driver, torch.tensor(candidates)).outputs
    members = outputs.tolist() if outputs.dim() == 3 else [outputs.reshape(len(candidates), -1).tolist()]
    means = {}
    for place, one in enumerate(candidates):
        each = [as_probabilities(member[place], kind_of(driver.learner)) for member in members]
        means[one] = [math.fsum(column) / len(each) for column in zip(*each, strict=True)]
    return means


def as_probabilities(row, kind):
    if kind == "probabilities":
        return row if len(row) > 1 else [1 - row[0], row[0]]
    row = row if len(row) > 1 else [0.0, row[0]]
    shifted = [math.exp(logit - max(row)) for logit in row]
    return [logit / math.fsum(shifted) for logit in shifted]


def entropy(p):
    return -math.fsum(share * math.log(share) for share in p if share > 0)


def predicted(p):
    return max(range(len(p)), key=lambda label: (p[label], -label))


def between(one, other):
    return math.dist(one, other)


def nearest(row, centers):
    return min((between(row, center) for center in centers), default=math.inf)


# -- the strategies ------------------------------------------------------------------------------------------------


class TestKCenter(QueryOracle):
    outputs, tasks, streams = TENSORS, ALL_TASKS, False
    layer = ""

    def make(self, **parameters):
        return KCenterQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        rows, centers = rows_of(driver, candidates, self.layer)
        for request in asked:
            assert_best_first([request], {other: nearest(row, centers) for other, row in rows.items()})
            centers.append(rows.pop(request.sample))


class TestKCenterOfInputs(TestKCenter, QueryPending, QueryRuns):
    """Distances of inputs are kept from step to step."""

    layer = "inputs"

    def make(self, **parameters):
        return KCenterQuery(layer=self.layer, **parameters)


class TestBADGE(QueryOracle):
    def make(self, **parameters):
        return BADGEQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        """Which ones are drawn is random; the first isn't, and scores are squared distances of gradients."""
        waiting = driver.pending().tolist()
        samples = sorted([*candidates, *waiting])
        rows, _ = rows_of(driver, samples)
        gradients = {}
        for one, p in probabilities_of(driver, samples).items():
            errors = [share - (label == predicted(p)) for label, share in enumerate(p)]
            gradients[one] = [error * number for error in errors for number in rows[one]]
        none = [0.0] * len(gradients[candidates[0]])
        taken = [gradients[sample] for sample in waiting]
        away = {sample: nearest(gradients[sample], taken or [none]) ** 2 for sample in candidates}
        unit = asked[0].score / away[asked[0].sample]
        if not waiting:
            assert_best_first(asked[:1], {one: unit * square for one, square in away.items()})
        taken.append(gradients[asked[0].sample])
        for request in asked[1:]:
            square = unit * nearest(gradients[request.sample], taken) ** 2
            assert request.score > 0
            assert math.isclose(request.score, square, rel_tol=1e-6), (
                f"sample {request.sample}: {request.score}, not {square}"
            )
            taken.append(gradients[request.sample])


class TestTypiClust(QueryOracle):
    outputs, tasks = TENSORS, ALL_TASKS

    def make(self, **parameters):
        return TypiClustQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        """Clusters are those of k-means, which is scikit-learn's; their order and the sample of each are compared."""
        features = extract_features(driver, torch.tensor(candidates)).features
        labeled = labeled_features(driver).features
        if len(driver.pending()):
            labeled = torch.cat([labeled, extract_features(driver, driver.pending()).features])
        generator = driver.query_strategies[0].generator()
        clusters = k_means(torch.cat([labeled, features]), len(labeled) + len(asked), generator).tolist()
        labels, free = clusters[: len(labeled)], dict(zip(candidates, clusters[len(labeled) :], strict=True))
        rows = dict(zip(candidates, features.tolist(), strict=True))
        sizes = {cluster: clusters.count(cluster) for cluster in set(clusters)}
        order = sorted(sizes, key=lambda one: (sizes[one] <= 5, labels.count(one), -sizes[one], one))
        large = [cluster for cluster in order if sizes[cluster] > 5 and cluster in free.values()]
        expected, turns = [], itertools.cycle(large or [cluster for cluster in order if cluster in free.values()])
        while len(expected) < len(asked):
            cluster = next(cluster for cluster in turns if cluster in free.values())
            expected.append(most_typical([sample for sample in candidates if free.get(sample) == cluster], rows))
            del free[expected[-1]]
            if large and not any(cluster in large for cluster in free.values()):
                large, turns = [], itertools.cycle([cluster for cluster in order if cluster in free.values()])
        return expected


def most_typical(group, rows):
    count = min(20, max(len(group) // 2, 1), len(group) - 1)

    def mean(one):
        others = sorted(between(rows[one], rows[other]) for other in group if other != one)
        return math.fsum(others[:count]) / max(count, 1)

    return min(group, key=lambda one: (mean(one), one))


class TestProbCover(QueryOracle, QueryEffects):
    outputs, tasks, streams, seeded = TENSORS, ALL_TASKS, False, True
    delta = 0.6

    def make(self, **parameters):
        return ProbCoverQuery(delta=self.delta, **parameters)

    def oracle(self, driver, candidates, asked):
        rows, centers = rows_of(driver, candidates)
        for place, one in enumerate(asked):
            open_ = [other for other, row in rows.items() if nearest(row, centers) > self.delta]
            left = [other for other in candidates if other not in {done.sample for done in asked[:place]}]
            gains = {other: sum(between(rows[other], rows[far]) <= self.delta for far in open_) for other in left}
            assert one.score == gains[one.sample] == max(gains.values())
            if one.score:
                assert one.sample == min(other for other in left if gains[other] == one.score)
            centers.append(rows[one.sample])


class TestClusterMargin(QueryOracle):
    shortlist = 5

    def make(self, **parameters):
        return ClusterMarginQuery(shortlist=self.shortlist, **parameters)

    def oracle(self, driver, candidates, asked):
        """Samples of a cluster are drawn; the shortlist, and which cluster a pick is of, are not."""
        margins = {}
        for one, p in probabilities_of(driver, candidates).items():
            second, first = sorted(p)[-2:]
            margins[one] = first - second
        size = self.shortlist * len(asked)
        least = sorted(sorted(margins, key=lambda one: (margins[one], one))[:size])
        rows, _ = rows_of(driver, candidates)
        before = pending_rows(driver)
        clusters = AgglomerativeClustering(math.ceil((size + len(before)) / 10), linkage="average").fit_predict(
            [*before, *(rows[sample] for sample in least)]
        )
        cluster_of = dict(zip(least, clusters.tolist()[len(before) :], strict=True))
        sizes = {cluster: clusters.tolist().count(cluster) for cluster in clusters.tolist()}
        taken = {cluster: clusters.tolist()[: len(before)].count(cluster) for cluster in sizes}
        order = sorted(sizes, key=lambda one: (sizes[one], one))
        rounds = [
            [cluster for cluster in order if sizes[cluster] > turn >= taken[cluster]] for turn in range(2 * len(asked))
        ]
        expected = [cluster for turn in rounds for cluster in turn][: len(asked)]
        assert [cluster_of[request.sample] for request in asked] == expected


class TestInformationDensity(QueryOracle, QueryEffects):
    streams = False
    similarity = "cosine"

    def make(self, **parameters):
        return InformationDensityQuery(similarity=self.similarity, **parameters)

    def oracle(self, driver, candidates, asked):
        rows, _ = rows_of(driver, candidates)
        others = [*rows.values(), *pending_rows(driver)]
        scores = {}
        for one, p in probabilities_of(driver, candidates).items():
            mean = math.fsum(self.similar(rows[one], row) for row in others) / len(others)
            scores[one] = entropy(p) * max(mean, 0)
        assert_best_first(asked, scores, rtol=1e-6)

    def similar(self, one, other):
        return math.fsum(map(operator.mul, one, other)) / math.hypot(*one) / math.hypot(*other)


class TestEuclideanDensity(TestInformationDensity):
    similarity = "euclidean"

    def similar(self, one, other):
        return 1 / (1 + between(one, other))


class TestClassBalanced(QueryOracle):
    def make(self, **parameters):
        return ClassBalancedQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        shares = probabilities_of(driver, candidates)
        classes = {one: predicted(p) for one, p in shares.items()}
        targets = labeled_features(driver).targets.flatten().tolist()
        if len(driver.pending()):
            targets += map(predicted, probabilities_of(driver, driver.pending().tolist()).values())
        counts = {label: targets.count(label) for label in range(len(shares[candidates[0]]))}
        for request in asked:
            rarest = min((counts[label], label) for label in classes.values())[1]
            assert classes[request.sample] == rarest
            assert_best_first(
                [request], {other: entropy(shares[other]) for other in classes if classes[other] == rarest}
            )
            counts[rarest] += 1
            del classes[request.sample]


class TestStratified(QueryOracle):
    def make(self, **parameters):
        return StratifiedQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        """Samples of a class are drawn; how many of each class is not."""
        waiting = driver.pending().tolist()
        samples = sorted([*candidates, *waiting])
        classes = {one: predicted(p) for one, p in probabilities_of(driver, samples).items()}
        sizes = {label: list(classes.values()).count(label) for label in sorted(set(classes.values()))}
        before = [classes[sample] for sample in waiting]
        wanted = largest_remainders(sizes, len(asked) + len(waiting))
        missing = {label: max(share - before.count(label), 0) for label, share in wanted.items()}
        chosen = [classes[request.sample] for request in asked]
        assert {label: chosen.count(label) for label in sizes} == largest_remainders(missing, len(asked))


def largest_remainders(sizes, n):
    total = sum(sizes.values())
    shares = {label: n * size // total for label, size in sizes.items()}
    for label in sorted(sizes, key=lambda one: (-(n * sizes[one] % total), one))[: n - sum(shares.values())]:
        shares[label] += 1
    return shares


class TestStratifiedStart(QueryOracle):
    outputs = ALL_OUTPUTS

    def make(self, **parameters):
        return StratifiedStart(**parameters)

    def oracle(self, driver, candidates, asked):
        """One sample of each class first; which one is drawn."""
        classes = {int(driver.choice_pool.answer(sample)[1]) for sample in candidates}
        firsts = [int(driver.choice_pool.answer(request.sample)[1]) for request in asked[: len(classes)]]
        assert sorted(firsts) == sorted(classes)
