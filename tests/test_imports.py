"""How many modules of afresh two commands load: those of the kind of data that they meet, not those of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Set
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afresh.core.plugins import own_plugins
from afresh.data import audio, tables
from afresh.data.image.pairs import CONTAINERS, IMAGE_FILES
from afresh.data.text.languages import BY_SUFFIX, NAMES
from afresh.domains.field.reading.files import OPEN
from afresh.domains.molecule.reading import PLAIN
from afresh.domains.molecule.reading import READ as MOLECULES
from afresh.domains.music.files import READ as SCORES
from afresh.domains.text.reading import READ as TEXTS
from afresh.domains.text.recognise import SUFFIXES as ADVISED
from afresh.domains.text.token_files import SUFFIXES as TOKENS

# Loaded by `train` on a folder of images and by `sample` of its run; the numbers may only become smaller.
TRAIN, SAMPLE = 300, 182
COUNT = """
import sys
from afresh.faces.cli import run
code = run(sys.argv[1:])
inner = [m.split(".") for m in sys.modules if m.startswith("afresh.domains.")]
domains = {m[2] for m in inner if len(m) > 3 and m[3] != "verbs"}  # their verbs are looked at for names of options
print(code, sum(m.split(".")[0] == "afresh" for m in sys.modules), *sorted(domains))
"""


def loaded(*argv: str | Path) -> tuple[int, set[str]]:
    """The number of modules of afresh after a command, and the domains of which more than the record was loaded."""
    command = [sys.executable, "-c", COUNT, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "NO_COLOR": "1"})
    code, count, *domains = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return int(count), set(domains)


@pytest.mark.slow
def test_training_and_sampling_of_images_load_no_more_than_they_may(tmp_path: Path) -> None:
    for i in range(64):
        file = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(file)
    run = tmp_path / "run"
    count, _ = loaded("train", tmp_path / "data", "--steps", "2", "--no-measure", "--out", run)
    assert count <= TRAIN
    count, domains = loaded("sample", run, "-n", "2", "--out", tmp_path / "samples")
    assert count <= SAMPLE
    assert domains == {"image"}


@pytest.mark.parametrize(
    ("domain", "read"),
    [
        ("audio", audio.SUFFIXES),
        ("code", {*BY_SUFFIX, *(Path(name).suffix for name in NAMES)}),
        ("exercises", tables.TABLES),
        ("field", OPEN.keys()),
        ("image", IMAGE_FILES.suffixes | CONTAINERS),
        ("interactions", tables.TABLES | {".inter"}),
        ("molecule", MOLECULES | {PLAIN}),
        ("music", SCORES),
        ("series", tables.SUFFIXES),
        ("table", tables.TABLES),
        ("text", TEXTS | TOKENS | {suffix for suffixes, _ in ADVISED.values() for suffix in suffixes}),
    ],
)
def test_a_domain_names_the_suffixes_of_what_it_recognises(domain: str, read: Set[str]) -> None:
    """But those that no domain names: about an archive, or a file without a suffix, every one is asked."""
    named = {name: set(plugin.suffixes) for name, plugin in own_plugins().items()}
    assert not (read - named[domain]) & set().union(*named.values())
    assert read - named[domain] <= {"", ".zip", ".zarr"}
