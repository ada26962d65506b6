"""F1 keeps the contract of metrology strategies."""

import torch
from alcore_f1 import F1Metrology
from alcore_testing import MetrologyContract


class TestF1Metrology(MetrologyContract):
    name = "f1"

    def make(self, **parameters):
        return F1Metrology(**parameters)

    def oracle(self, outputs, targets, kind):
        """Counted pair by pair."""
        outputs = outputs if outputs.dim() == 3 else outputs.reshape(1, len(targets), -1)
        if outputs.shape[2] == 1:
            outputs = torch.cat([0 * outputs if kind == "logits" else 1 - outputs, outputs], dim=2)
        rows = (outputs.softmax(dim=2) if kind == "logits" else outputs).mean(dim=0).tolist()
        pairs = list(zip([row.index(max(row)) for row in rows], targets.tolist(), strict=True))
        by_label = [figures(pairs, label) for label in range(len(rows[0]))]
        accuracy = {"accuracy": sum(one == other for one, other in pairs) / len(pairs), "samples": len(pairs)}
        if len(by_label) == 2:
            return {**by_label[1], **accuracy}
        return {
            name: sum(figures_of_label[name] for figures_of_label in by_label) / len(by_label) for name in by_label[0]
        } | accuracy


def figures(pairs, label):
    hits = pairs.count((label, label))
    predicted, true = (sum(pair[side] == label for pair in pairs) for side in (0, 1))
    precision, recall = hits / predicted if predicted else 0.0, hits / true if true else 0.0
    return {"precision": precision, "recall": recall, "f1": 2 * hits / (predicted + true) if predicted + true else 0.0}
