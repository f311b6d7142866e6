"""One rule for every command with --out: a place that exists is refused by name, and replaced with --force."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from afresh.faces.cli import commands
from tests.faces.cli.conftest import AT_THE_END, FLOW, WORDS, Invoke

FLOWS, TEXTS = (*AT_THE_END, *FLOW), (*AT_THE_END, *WORDS)
APPENDS = {"compare"}  # its votes are added to those in the file
AGAIN = {"catalogue publish"}  # replaces the site that it has written before, and nothing else
FILES = {"launch"}  # whose --out is that of the command that is launched


def test_every_command_with_an_output_has_force() -> None:
    named = {name: inspect.signature(command).parameters for name, command in commands().items()}
    forced = {n for n, p in named.items() if "force" in p}
    assert {n for n, p in named.items() if "out" in p} - APPENDS - AGAIN == forced - FILES


def test_an_output_that_exists_is_refused_or_replaced(
    digits: Path, texts: Path, pictures_run: Path, texts_run: Path, tmp_path: Path, invoke: Invoke
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file.html"
    commands = {
        ("train", texts, "--steps", 1, "--no-measure", *TEXTS): folder,
        ("sample", texts_run, "-n", 2, "--length", 4): folder,
        ("sample", pictures_run, "-n", 2, "--steps", 1): tmp_path / "grid.png",
        ("export", texts_run, "--to", "safetensors"): folder,
        ("data", digits): file,
    }
    for argv, out in commands.items():
        assert invoke(*argv, "--out", out)[0] == 0
        before = {p: p.stat().st_mtime_ns for p in (out, *out.rglob("*"))}
        code, _, err = invoke(*argv, "--out", out)
        said = " ".join(err.split())
        assert code == 2 and str(out) in said and "--force" in said and "Traceback" not in said, argv
        assert {p: p.stat().st_mtime_ns for p in (out, *out.rglob("*"))} == before
        assert invoke(*argv, "--out", out, "--force")[0] == 0, argv
        assert out.stat().st_mtime_ns != before[out]
        out.rename(tmp_path / f"done-{len(list(tmp_path.iterdir()))}")


def test_fewer_samples_leave_none_of_the_earlier_ones(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    for count in (4, 2):
        out = tmp_path / "drawn"
        assert invoke("sample", pictures_run, "-n", count, "--steps", 1, "--out", out, "--force")[0] == 0
        assert len(list(out.glob("[0-9]*.png"))) == count


def test_other_things_are_not_replaced_by_an_export(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = invoke("export", texts_run, "--to", "safetensors", "--out", tmp_path, "--force")
    assert code == 2 and "is not an export" in " ".join(err.split())
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("argv", [("demo",), ("compose", "RUN", "FILE")])
def test_others_refuse_before_they_begin(
    argv: tuple[str, ...], texts_run: Path, tmp_path: Path, invoke: Invoke
) -> None:
    (tmp_path / "mine").write_text("mine")
    given = [{"RUN": texts_run, "FILE": tmp_path / "mine"}.get(a, a) for a in argv]
    code, _, err = invoke(*given, "--out", tmp_path)
    assert code == 2 and f"{tmp_path} exists" in err.replace("\n", "") and "--force" in err
