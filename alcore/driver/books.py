"""What the books of a step say: losses over ranks, and the step as one line of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alcore.distributed.ranks import mean_over_ranks


def means(everywhere: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each loss over ranks; equal ones, and those of one rank, stay as they are."""
    return {name: mean_over_ranks([one[name] for one in everywhere]) for name in everywhere[0]}


def sentence(book: Mapping[str, Any], metrics: Mapping[str, Sequence[Any]]) -> str:
    """Return the line of the log for a step."""
    words = [f"{book['train_samples']} training samples"]
    words += [f"{name} {value:.4g}" for name, value in book.get("losses", {}).items()]
    for records in metrics.values():
        for record in records[:1]:
            if isinstance(record, Mapping):
                words += [f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, float)]
    words.append(f"{book['requested']} requested, {book['labelled']} labelled")
    return ", ".join(words)
