"""Words of the code and the documents: names in place of pronouns, and American spelling."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = {".py", ".md", ".toml", ".html", ".j2", ".css", ".js", ".txt", ".cfg", ".sh", ""}

PRONOUNS = re.compile(r"(?<![.\w])(?:for one in|found =|known =)")
"""Names that say nothing of the thing: a loop variable or a result is called by its noun."""

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
    re.IGNORECASE,
)
EXCEPTIONS = {
    # a file, or a pattern of some: the words that may stand there, and why
    "CHANGELOG.md": ("labelled neighbour", "names that were, beside those that are"),
    "alcore/store/endings.py": ("labelled unlabelled", "sentences that older runs stored"),
    "tests/store/test_endings.py": ("labelled unlabelled", "sentences that older runs stored"),
    "tests/store/test_golden.py": ("labelled", "a record of a stored run"),
    "tests/helpers/toys.py": ("labelled", "the records of its metrology, which stored runs have too"),
    "tests/driver/test_driver.py": ("labelled", "records of the toy metrology"),
    "tests/test_hookspecs.py": ("labelled", "records of the toy metrology"),
    "tests/project/fingerprint.py": ("colour", "a column of its data, whose name the fingerprint holds"),
    "tests/project/test_words.py": ("*", "this list"),
    "plugins/alcore-labelers/alcore_labelers/answer_files.py": ("labelled", "a user may write it in a file"),
    "plugins/alcore-labelers/*": ("cancelled", "the state of a job, as Slurm and Python's futures name it"),
    "docs/jobs.md": ("cancelled", "the state of a job, as Slurm names it"),
    "plugins/alcore-sklearn/alcore_sklearn/labeled.py": ("labelled", "what older experiment files hold"),
    "plugins/alcore-sklearn/tests/test_sklearn_state.py": ("labelled", "what older experiment files hold"),
    "plugins/alcore-tabular/tests/*": ("colour", "a column of a user's table, in the language of the user"),
    "docs/labeling.md": ("vectorised", "to be mended with the page"),
}

MADE = re.compile(r"\.(?!ci).*|__pycache__|.*\.egg-info|data|dist|build|active_learning_logs")
"""Folders that git ignores."""


def files() -> list[Path]:
    """Return the texts of the repository, without what is made or fetched; git may not be there to ask."""
    paths: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not MADE.fullmatch(name)]
        paths += [Path(folder, name) for name in names]
    return [path for path in paths if path.is_file() and path.suffix in TEXTS and not path.name.endswith(".min.js")]


def british_words(text: str) -> set[str]:
    return {match[0].lower() for match in BRITISH.finditer(text)}


def test_things_are_called_by_their_names() -> None:
    wrong = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix != ".py" or name == "tests/project/test_words.py":
            continue
        text = path.read_text(encoding="utf-8").replace("local found =", "")  # of Lua
        wrong += [f"{name}: {words}" for words in PRONOUNS.findall(text)]
    assert not wrong, "call the thing by its noun"


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
    wrong, used = [], set()
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for word in british_words(text):
            allowed = [
                pattern
                for pattern, (words, _) in EXCEPTIONS.items()
                if fnmatch.fnmatch(name, pattern) and (words == "*" or word in words.split())
            ]
            used.update(allowed)
            wrong += [] if allowed else [f"{name}: {word}"]
    assert not wrong, "spell it as American English does, or give a reason in EXCEPTIONS"
    assert not EXCEPTIONS.keys() - used, "these exceptions are not needed any more"
