"""Set-based figures of ``query.py``: the pure functions of the plugins, and floors by hand in plain torch."""

from __future__ import annotations

import copy
import math

import torch
from figures import Figure, K, best, draw


def spread(features: torch.Tensor, near: torch.Tensor, k: int, size: int = 2048) -> torch.Tensor:
    """Choose the farthest sample again and again: among a shortlist, until one outside may be farther."""
    picks: list[int] = []
    while len(picks) < k:
        bound, rows = near.topk(size + 1)
        inside, new = bound[:-1].clone(), []
        block = features[rows[:-1]]
        while len(picks) < k and float(inside.max()) >= float(bound[-1]):
            place = int(inside.argmax())
            new.append(block[place])
            picks.append(int(rows[place]))
            inside = torch.minimum(inside, (block - block[place]).square().sum(dim=1))
        if len(picks) < k:
            near = torch.minimum(near, squares(features, torch.stack(new)))
    return torch.tensor(picks)


def squares(features: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Return the squared distance of each sample to the nearest center."""
    norms = centers.square().sum(dim=1)
    parts = [torch.addmm(norms, part, centers.t(), alpha=-2).amin(dim=1) for part in features.split(1024)]
    return torch.cat(parts).add_(features.square().sum(dim=1)).clamp_(min=0)


def farthest(features: torch.Tensor, labeled: torch.Tensor) -> torch.Tensor:
    """Return the choice of greedy k-center in double precision, one distance after the other."""
    x = features.double()
    near = torch.cat([torch.cdist(part, labeled.double()).amin(dim=1) for part in x.split(4096)])
    picks = []
    for _ in range(K):
        picks.append(int(near.argmax()))
        near = torch.minimum(near, (x - x[picks[-1]]).norm(dim=1))
    return torch.tensor(picks)


def kcenter(_: str) -> Figure:
    """Greedy k-center among 2x10^5 samples of 64 features, 1000 labeled."""
    from alcore_diversity.kcenter import k_center

    features, labeled = draw(2 * 10**5, 64), draw(1000, 64, seed=1)
    return Figure(
        lambda: k_center(features, labeled, K)[0],
        lambda: spread(features, squares(features, labeled), K),
        lambda: farthest(features, labeled),
        {"features": features, "labeled": labeled},
    )


def kcenter_kept(_: str) -> Figure:
    """The round after that, with the distances kept: the features did not change."""
    from alcore_diversity.kcenter import farthest_first
    from alcore_diversity.nearest_center import NearestCenter

    features, labeled = draw(2 * 10**5, 64), draw(1000, 64, seed=1)
    near = NearestCenter(features, labeled)
    first, _ = farthest_first(near, K)
    bound = squares(features, torch.cat([labeled, features[first]])).index_fill_(0, first, -1)

    def ours() -> torch.Tensor:
        again = copy.copy(near)  # the search changes it
        again.bound, again.seen = near.bound.clone(), near.seen.clone()
        return farthest_first(again, K)[0]

    return Figure(
        ours,
        lambda: spread(features, bound, K),
        lambda: farthest(features, torch.cat([labeled, features[first]])),
    )


def badge(_: str) -> Figure:
    """BADGE on 5x10^4 samples of 64 features and 10 classes."""
    from alcore_diversity.badge import badge as choose

    features, p = draw(5 * 10**4, 64), torch.softmax(2 * draw(5 * 10**4, 10, seed=1), dim=1)

    def floor() -> torch.Tensor:  # distances of outer products, from products of their factors
        generator = torch.Generator().manual_seed(0)
        error = p - torch.nn.functional.one_hot(p.argmax(dim=1), 10)
        norms = features.square().sum(dim=1) * error.square().sum(dim=1)
        picks = [int(norms.argmax())]
        near = torch.full_like(norms, math.inf)
        while len(picks) < K:
            last = picks[-1]
            between = (features @ features[last]).mul_(error @ error[last])
            near = torch.minimum(near, (norms + norms[last]).sub_(between, alpha=2).clamp_(min=0))
            near[last] = 0
            picks.append(int(torch.multinomial(near, 1, generator=generator)))
        return torch.tensor(picks)

    return Figure(
        lambda: choose(features, p, K, torch.Generator().manual_seed(0))[0], floor, None, {"features": features, "p": p}
    )


def bald(_: str) -> Figure:
    """BALD of 10^5 samples, 20 draws from a posterior, 10 classes."""
    from alcore.inference import TopK
    from alcore.outputs import bald as measure

    p, ids = torch.softmax(2 * draw(20, 10**5, 10), dim=2), torch.arange(10**5)
    ones = torch.ones(10)

    def information(block: torch.Tensor) -> torch.Tensor:
        mean, ones_ = block.mean(dim=0), ones.to(block.dtype)
        inner = block.log().mul_(block).sum(dim=0).div_(len(block))
        return (inner - mean.log().mul_(mean)) @ ones_

    def floor() -> torch.Tensor:
        rough = torch.cat([information(p[:, start : start + 1024]) for start in range(0, p.shape[1], 1024)])
        short = rough.topk(2 * K).indices.sort().values
        return short[best(information(p[:, short].double()))]

    def ours() -> torch.Tensor:  # ranked as the strategy does
        chosen = TopK(K)
        chosen.add(ids, measure(p, "probabilities", top=K))
        return chosen.result().ids

    return Figure(ours, floor, lambda: best(information(p.double())), {"posterior": p})


def batchbald(_: str) -> Figure:
    """BatchBALD: 10 picks among 2000 samples, 20 draws from a posterior, 10 classes, 2000 joint configurations."""
    from alcore_bayes import batch_bald

    p = torch.softmax(2 * draw(20, 2000, 10), dim=2)

    def floor() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        joint = torch.ones(1, 20)  # of each configuration, for each draw
        inner = torch.special.entr(p).sum(dim=2).mean(dim=0)
        flat, picks = p.reshape(20, -1), []
        for _ in range(10):
            total = torch.zeros(flat.shape[1])
            mass = joint.mean(dim=1)
            for some, share in zip(joint.split(64), mass.split(64), strict=True):
                given = (some @ flat).div_(20).clamp_(min=1e-38)
                total -= (given * (given / share[:, None]).log_()).sum(dim=0)
            gain = total.reshape(2000, 10).sum(dim=1) - inner
            gain[picks] = -math.inf
            picks.append(int(gain.argmax()))
            joint = (joint[:, None] * p[:, picks[-1]].t()[None]).reshape(-1, 20)
            if len(joint) > 2000:
                mass = joint.mean(dim=1)
                drawn = torch.multinomial(mass, 2000, replacement=True, generator=generator)
                joint = joint[drawn] / (mass[drawn][:, None] * 2000)
        return torch.tensor(picks)

    return Figure(lambda: batch_bald(p, 10, "probabilities")[0], floor, None, {"joint": p})


def typiclust(_: str) -> Figure:
    """TypiClust: 100 picks among 5x10^4 samples of 64 features."""
    from alcore_diversity.clusters import k_means
    from alcore_diversity.typiclust import typiclust as choose
    from sklearn.cluster import MiniBatchKMeans

    features, none = draw(5 * 10**4, 64), torch.empty(0, dtype=torch.int64)

    def floor() -> torch.Tensor:
        seed = int(torch.randint(2**31 - 1, (), generator=torch.Generator().manual_seed(0)))
        model = MiniBatchKMeans(K, n_init=1, batch_size=5000, random_state=seed)
        clusters = torch.from_numpy(model.fit_predict(features.numpy())).long()
        picks = []
        for cluster in torch.bincount(clusters, minlength=K).argsort(descending=True, stable=True).tolist():
            rows = (clusters == cluster).nonzero().flatten()
            if len(rows):
                neighbors = min(20, max(len(rows) // 2, 1))
                distances = torch.cdist(features[rows], features[rows])
                picks.append(int(rows[distances.topk(neighbors + 1, largest=False).values.mean(dim=1).argmin()]))
        return torch.tensor(picks)

    def ours() -> torch.Tensor:
        return choose(features, k_means(features, K, torch.Generator().manual_seed(0)), none, K)[0]

    return Figure(ours, floor, None, {"features": features, "typiclust": True})


SETS = {made.__name__: made for made in (kcenter, kcenter_kept, badge, bald, batchbald, typiclust)}
