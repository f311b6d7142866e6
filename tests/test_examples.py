"""The examples of the documentation, blocks that begin with `bash example` or `python example`, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE = re.compile(r"^```(bash|python) example\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS = {"molecules": ("rdkit", "afresh[chem]")}


def examples(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each, in the order of the page."""
    return EXAMPLE.findall(page.read_text("utf-8"))


WITH_EXAMPLES = [page for page in sorted(DOCS.rglob("*.md")) if examples(page)]


@pytest.mark.parametrize("page", sorted(DOCS.glob("guides/*.md")), ids=lambda p: p.stem)
def test_a_whole_job_has_an_example_in_the_shell_and_in_python(page: Path) -> None:
    whole = "\n## A whole job" in page.read_text("utf-8")
    assert [language for language, _ in examples(page)] == (["bash", "python"] if whole else [])


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine: half a minute on a free one
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda p: p.stem)
def test_the_examples_of_a_page_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    """One after the other in one folder, by this Python and its afresh."""
    if page.stem in NEEDS:
        needs.package(*NEEDS[page.stem])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for language, text in examples(page):
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, text], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{language}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
