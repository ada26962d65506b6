"""The spelling of the sources and the pages, which users read, is American."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = {".py", ".md", ".toml", ".html", ".j2", ".css", ".js"}

_IZED = (
    "author|character|custom|equal|final|general|initial|item|local|material|maxim|minim|modern|normal|optim|organ|"
    "parallel|parametr|penal|priorit|random|real|recogn|regular|serial|special|stabil|standard|summar|symbol|synchron|"
    "token|util|vector|visual"
)
BRITISH = re.compile(
    rf"(?:{_IZED})(?:ise|ised|iser|ises|ising|isation|isations)(?![a-z])"
    r"|un?labelled|labell(?:ed|er|ing)(?!by)|cancell(?:ed|ing)|modell(?:ed|er|ing)|signall(?:ed|ing)|travell(?:ed|ing)"
    r"|behaviour|colour|favour|flavour|honour|neighbour|rumour|vapour"
    r"|(?<![a-z])(?:analyse(?!s)|analysed|analysing|artefact|catalogue|centre|centred|defence|fibre|fulfil|grey|judgement"
    r"|learnt|licence|litre|metre|mispelt|misspelt|offence|programme|skilful|spelt|towards|whilst)s?(?![a-z])",
)
EXCEPTIONS = {
    "cancelled": ("docs/jobs.md", "plugins/alcore-labelers/"),  # the state of a job, as Slurm and Python name it
    "labelled": ("plugins/alcore-labelers/", "plugins/alcore-sklearn/"),  # in older files
}
"""The files and folders in which a word may stand."""


def texts() -> list[Path]:
    """Return what users read: sources, pages and examples, without tests and the history in the changelog."""
    read = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("plugins/*/README.md"), *ROOT.glob("docs/*.md")]
    for folder in ("alcore", "plugins/*/alcore_*", "examples"):
        read += [path for path in ROOT.glob(f"{folder}/**/*") if path.suffix in TEXTS]
    return [path for path in read if path.is_file() and not path.name.endswith(".min.js")]


def british_words(text: str) -> set[str]:
    words = set(re.findall("[a-z]+", text.lower()))  # each word once: the pattern is slow
    return {match[0] for word in words for match in BRITISH.finditer(word)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unlabelled Colours, a centre", {"unlabelled", "colour", "centre"}),
        ("serialised, organisation, _COLOURS, analysing", {"serialised", "organisation", "colour", "analysing"}),
        ("a cancelled job; grey licences", {"cancelled", "grey", "licences"}),
        ("aria-labelledby, promise, raised, center, color, parameter, thermometre", set()),
        ("unlabeled, labeled, programmed, precise, otherwise, analyses, exercise", set()),
    ],
)
def test_the_list_knows_british_spelling(text: str, words: set[str]) -> None:
    assert british_words(text) == words


def test_the_spelling_is_american() -> None:
    wrong = []
    for path in texts():
        name = path.relative_to(ROOT).as_posix()
        words = british_words(path.read_text(encoding="utf-8"))
        wrong += [f"{name}: {word}" for word in words if not name.startswith(EXCEPTIONS.get(word, "no file"))]
    assert not wrong, "spell it as American English does, or give a reason in EXCEPTIONS"
