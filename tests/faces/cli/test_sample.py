"""`afresh sample`: records, files, and what is shown without --out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.core import Cond
from afresh.core.safe_text import visible
from afresh.domains.music.encoder import ScoreEncoder
from afresh.engine.sampling.samples import Samples
from afresh.faces.cli.show_samples import show_texts
from tests.faces.cli.conftest import Invoke, drawn


def test_pictures_are_written_with_their_records(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "new" / "samples"
    code, printed, _ = invoke("sample", pictures_run, "-n", 12, "--label", "d7", "--steps", 2, "--out", out, "--json")
    records = drawn(printed)
    assert code == 0 and records == json.loads((out / "samples.json").read_bytes())
    assert [r["file"] for r in records] == [f"{i:02d}.png" for i in range(12)]
    assert all({"file", "prompt", "label", "seed"} <= set(r) for r in records)
    assert {(r["label"], r["seed"], r["prompt"]) for r in records} == {("d7", 0, None)}
    for r in records:
        with Image.open(out / r["file"]) as image:
            assert image.size == (8, 8) and image.mode == "L"
    assert (out / "grid.png").is_file()


def test_a_png_gets_one_picture_of_all(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "all.png"
    code, printed, _ = invoke("sample", pictures_run, "-n", 4, "--steps", 1, "--out", out, "--json")
    assert code == 0 and len(drawn(printed)) == 4
    with Image.open(out) as image:
        assert min(image.size) > 2 * 64, "two by two pictures, enlarged"
    assert list(tmp_path.iterdir()) == [out]


def test_settings_without_a_flag_are_set(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    def drawn(*more: object) -> np.ndarray:
        argv = ("sample", pictures_run, "-n", 2, "--label", "d1", "--steps", 2, "--out", tmp_path / "x.png", "--force")
        assert invoke(*argv, *more)[0] == 0
        return np.asarray(Image.open(tmp_path / "x.png"))

    assert not np.array_equal(drawn(), drawn("--set", "autoguidance=3"))
    assert not np.array_equal(drawn("--guidance", 4), drawn("--guidance", 4, "--set", "guidance_low=0.4"))
    for more, said in (
        (("--set", "steps=3", "--steps", 2), "steps is given twice: by --steps and by --set steps"),
        (("--set", "guidance_low=0.4"), "times of guidance, and there is none"),
        (("--set", "autogidance=3"), "does not know autogidance"),
    ):
        code, _, err = invoke("sample", pictures_run, "-n", 1, *more)
        assert code == 2 and said in " ".join(err.split())


def test_the_seed_decides(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    def drawn(seed: int, n: int, name: str) -> list[np.ndarray]:
        argv = ("sample", pictures_run, "-n", n, "--label", "d1", "--steps", 2, "--seed", seed)
        assert invoke(*argv, "--out", tmp_path / name)[0] == 0
        return [np.asarray(Image.open(p)) for p in sorted((tmp_path / name).glob("[0-9].png"))]

    first, again, other, fewer = drawn(1, 3, "a"), drawn(1, 3, "b"), drawn(2, 3, "c"), drawn(1, 1, "d")
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first, other))
    assert np.abs(first[0].astype(int) - fewer[0].astype(int)).max() <= 1, "alone as in a batch, to a level of grey"


def test_without_out_pictures_are_drawn_in_the_terminal(pictures_run: Path, invoke: Invoke, terminal: None) -> None:
    code, printed, err = invoke("sample", pictures_run, "-n", 3, "--label", "d4", "--steps", 1)
    assert code == 0
    assert printed.count("\n") == 6 and "▀" in printed and "\x1b[38;2;" in printed, "12 rows of pixels in 6 lines"
    assert "labels: d4" in err


def test_a_pipe_and_a_terminal_without_colours_get_no_pictures(
    pictures_run: Path, digits: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    code, printed, err = invoke("sample", pictures_run, "-n", 3, "--steps", 1)
    assert code == 0 and printed == "" and "\x1b" not in err
    assert "3 images, not shown because this is not a terminal with colours. Write files: --out DIR." in err
    request.getfixturevalue("terminal")
    monkeypatch.setenv("NO_COLOR", "1")
    code, printed, err = invoke("sample", pictures_run, "-n", 3, "--steps", 1)
    assert code == 0 and printed == "" and "not shown" in err


@pytest.mark.parametrize(
    "line", ["sample PICTURES", "sample TEXTS", "show", "data DIGITS", "verify TEXTS", "help", "x"]
)
def test_no_escape_codes_in_a_pipe(
    line: str, pictures_run: Path, texts_run: Path, digits: Path, invoke: Invoke
) -> None:
    named = {"PICTURES": pictures_run, "TEXTS": texts_run, "DIGITS": digits}
    few = ["-n", 1, "--set", "steps=1"] if "PICTURES" in line else ["--length", 4] if line == "sample TEXTS" else []
    _, printed, err = invoke(*[named.get(w, w) for w in line.split()], *few)
    assert "\x1b" not in printed + err and printed + err


def test_texts_are_printed_written_and_recorded(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    argv = ("sample", texts_run, "-n", 2, "--prompt", "the cat", "--length", 8, "--temperature", 0.5, "--seed", 5)
    code, printed, _ = invoke(*argv, "--json")
    records = drawn(printed)
    assert code == 0 and len(records) == 2
    assert all({"text", "prompt", "label", "seed"} <= set(r) for r in records)
    assert {(r["prompt"], r["label"], r["seed"]) for r in records} == {("the cat", None, 5)}
    assert invoke(*argv, "--out", tmp_path)[0] == 0
    lines = (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == records
    shown = invoke(*argv)[1]
    assert all("the cat" + visible(r["text"]) in shown for r in records)


def test_temperature_zero_leaves_nothing_to_the_seed(texts_run: Path, invoke: Invoke) -> None:
    argv = ("sample", texts_run, "-n", 1, "--prompt", "the", "--length", 6, "--temperature", 0, "--json")
    one, two = (drawn(invoke(*argv, "--seed", s)[1])[0]["text"] for s in (1, 2))
    assert one == two


def test_a_prompt_longer_than_the_context_is_said_to_be(texts_run: Path, invoke: Invoke) -> None:
    code, printed, err = invoke("sample", texts_run, "-n", 1, "--prompt", "the cat " * 20, "--length", 2, "--json")
    assert code == 0 and len(drawn(printed)) == 1
    assert "the model sees the last 32 of them" in err


def test_a_text_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    encoder = ScoreEncoder(steps=4, voices=0, context=64, transpose=0)
    text = "red: \x1b[31m, bell: \x07, line\nend [bold]"
    show_texts(Samples([text], torch.zeros(1, 1), Cond(1), [{"prompt": None}], 0, encoder), [])
    assert capsys.readouterr().out == "red: ␛[31m, bell: ␇, line\nend [bold]\n"


# --------------------------------------------------------------------------- texts with holes


def test_holes_are_filled_and_what_is_known_is_kept(masked_run: Path, invoke: Invoke) -> None:
    argv = ("sample", masked_run, "-n", 3, "--infill", "the [[2]]t sat on[[5]] mat", "--seed", 1)
    code, printed, _ = invoke(*argv, "--json")
    records = drawn(printed)
    assert code == 0 and len(records) == 3
    for r in records:
        assert len(r["text"]) == len("the ??t sat on????? mat") and r["text"].startswith("the ")
        assert r["text"][6:14] == "t sat on" and r["text"].endswith(" mat")
        assert r["infill"] == "the [[2]]t sat on[[5]] mat" and r["prompt"] is None
    assert len({r["text"] for r in records}) > 1 and drawn(invoke(*argv, "--json")[1]) == records
    assert all(visible(r["text"]) in invoke(*argv)[1] for r in records)


def test_a_text_longer_than_the_window_is_filled_too(masked_run: Path, invoke: Invoke) -> None:
    text = "the cat sat on a mat and slept " * 4
    code, printed, _ = invoke("sample", masked_run, "-n", 1, "--infill", text + "on[[20]]the mat", "--json")
    assert code == 0 and drawn(printed)[0]["text"].startswith(text + "on") and len(drawn(printed)[0]["text"]) > 150


@pytest.mark.parametrize(
    "given,said",
    [
        (("--infill", "the cat"), r"write \[\[N\]\]"),
        (("--infill", "the [[3]]"), "--prompt and --length"),
        (("--infill", "the [[0]] cat"), "1 to 32 tokens"),
        (("--infill", "the [[33]] cat"), "1 to 32 tokens"),
        (("--infill", "the [[3]] cat", "--prompt", "the"), "not both"),
        (("--infill", "the [[3]] cat", "--length", "9"), "Leave --length out"),
        (("--set", "order=sideways"), "'random' or 'confidence'"),
    ],
)
def test_holes_that_cannot_be_filled_are_refused(
    masked_run: Path, invoke: Invoke, given: tuple[str, ...], said: str
) -> None:
    code, printed, err = invoke("sample", masked_run, *given)
    assert code == 2 and printed == "" and re.search(said, " ".join(err.split()))


def test_a_family_that_cannot_fill_holes_names_one_that_can(
    texts_run: Path, pictures_run: Path, invoke: Invoke
) -> None:
    for run in (texts_run, pictures_run):
        code, _, err = invoke("sample", run, "--infill", "the [[3]] cat")
        assert code == 2 and "Families that can: masked" in " ".join(err.split())
