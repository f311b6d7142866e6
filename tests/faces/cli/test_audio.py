"""Sounds through the command line: looked at, learnt, drawn, changed and measured; and what is refused, in words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import afresh
from afresh.core import Sound
from afresh.data.prepare import prepare
from afresh.faces.cli.show_samples import show_samples
from afresh.runs.inputs import encoded
from afresh.runs.run import Run
from afresh.verbs.edit import edit
from afresh.verbs.editor import Change, Editor
from afresh.verbs.extend_audio import extended, looped
from tests.faces.cli.conftest import FLOW, Invoke, drawn, parsed, trained

pytestmark = pytest.mark.slow

RATE = 8_000
FEW = ("--set", "steps=2")


def made_up(i: int) -> np.ndarray:
    """(T,) about 0.2 s: a beep where i is odd, a hiss where it is even."""
    rng = np.random.default_rng(i)
    t = np.arange(round(RATE * rng.uniform(0.16, 0.22))) / RATE
    x = 0.5 * np.sin(2 * np.pi * rng.uniform(300, 900) * t) if i % 2 else rng.uniform(-0.4, 0.4, len(t))
    return np.asarray(x * np.hanning(len(t)), np.float32)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 beeps and hisses in class folders, and five files that are of no use."""
    root = tmp_path_factory.mktemp("data") / "sounds"
    for i in range(40):
        folder = root / ("beep" if i % 2 else "hiss")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{i:02d}.wav", made_up(i), RATE, subtype="FLOAT")
    soundfile.write(root / "beep" / "silent.wav", np.zeros(2_000), RATE)
    soundfile.write(root / "beep" / "nan.wav", np.full(2_000, np.nan), RATE, subtype="FLOAT")
    soundfile.write(root / "hiss" / "empty.wav", np.zeros(0), RATE)
    (root / "hiss" / "text.wav").write_text("a text\n" * 40)
    (root / "hiss" / "cut.wav").write_bytes((root / "hiss" / "00.wav").read_bytes()[:30])
    return root


@pytest.fixture(scope="module")
def mel_run(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(sounds, tmp_path_factory.mktemp("runs") / "mels", *FLOW)


@pytest.fixture(scope="module")
def wave_run(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the first 480 samples of every sound."""
    short = ("--data", "representation=wave", "--data", "seconds=0.06", "--data", "long=cut")
    return trained(sounds, tmp_path_factory.mktemp("runs") / "waves", *FLOW, *short)


def read(file: Path) -> Sound:
    x, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Sound(x, rate)


def editor(path: Path) -> Editor:
    return Editor(Run.open(path), settings={"steps": 2})


# --------------------------------------------------------------------------- what works


def test_sounds_are_counted_and_what_is_of_no_use_is_named(sounds: Path, tmp_path: Path, invoke: Invoke) -> None:
    page = tmp_path / "page.html"
    code, printed, _ = invoke("data", sounds, "--json", "--out", page)
    seen = parsed(printed)
    assert code == 0 and seen["modality"] == "audio" and seen["train"] + seen["heldout"] == 40
    assert set(seen["labels"]["label"]) == {"beep", "hiss"} and seen["conditions"] == {"label": "label"}
    said = {r["source"]: r["reason"] for r in seen["refused"]}
    assert set(said) == {"beep/silent.wav", "beep/nan.wav", "hiss/empty.wav", "hiss/text.wav", "hiss/cut.wav"}
    assert "silent" in said["beep/silent.wav"] and "2,000 of its samples are not finite" in said["beep/nan.wav"]
    assert "0 samples" in said["hiss/empty.wav"] and "not a supported sound" in said["hiss/text.wav"]
    assert seen["options"]["rate"] == RATE and seen["options"]["seconds"] == pytest.approx(0.22, abs=0.01)
    assert 0.15 < seen["sizes"]["seconds"]["least"] < seen["sizes"]["seconds"]["most"] < 0.23
    assert page.read_text("utf-8").count("<audio") == 24


@pytest.mark.parametrize("which", ["mel_run", "wave_run"])
def test_drawn_sounds_are_files_to_be_played(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, invoke: Invoke
) -> None:
    run = request.getfixturevalue(which)
    code, printed, _ = invoke("sample", run, "-n", 3, "--label", "beep", "--steps", 2, "--out", tmp_path, "--json")
    records = drawn(printed)
    assert code == 0 and [r["file"] for r in records] == ["0.wav", "1.wav", "2.wav"]
    assert {r["label"] for r in records} == {"beep"} and records == json.loads((tmp_path / "samples.json").read_bytes())
    for r in records:
        made = read(tmp_path / r["file"])
        assert Run.open(run).encoder.valid(made) and 0 < made.seconds < 0.3
    page = (tmp_path / "index.html").read_text("utf-8")
    assert all(f'src="{r["file"]}"' in page for r in records) and page.count("<audio") == page.count("<img") == 3
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size[0] > 3 * 100


def test_sounds_are_shown_in_the_terminal(mel_run: Path, capsys: pytest.CaptureFixture[str], terminal: None) -> None:
    assert show_samples(afresh.load(mel_run).sample(2, steps=2))
    assert "\u2580" in capsys.readouterr().out


@pytest.mark.parametrize(
    "asked", [("--mask", "m.png"), ("--upscale", 2), ("--palette", "red"), ("--outpaint", "right=8")]
)
def test_what_only_pictures_have_is_refused(
    asked: tuple[str, object], wave_run: Path, mel_run: Path, sounds: Path, invoke: Invoke
) -> None:
    for run in (wave_run, mel_run):
        code, _, err = invoke("edit", run, sounds / "beep" / "01.wav", *asked)
        assert code == 2 and "images" in err and "--extend" in err


def test_held_out_sounds_that_are_longer_are_read_alike(tmp_path: Path) -> None:
    """The length comes from all of the data: what is read again by what was settled is the same."""
    for i in range(30):
        soundfile.write(tmp_path / f"{i:02d}.wav", np.random.default_rng(i).uniform(-0.4, 0.4, 800 + 9 * i), RATE)
    first = prepare(tmp_path, "audio", {"trim": False})
    again = prepare(tmp_path, "audio", first.options.model_dump(mode="json"), encoder=first.encoder)
    assert again.split_hash == first.split_hash
    assert torch.equal(again.heldout.x, first.heldout.x)


def test_a_report_plays_what_it_shows(mel_run: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("measure", mel_run, "-n", 20, "--json")
    assert code == 0 and parsed(printed)
    report = (mel_run / "report.html").read_text("utf-8")
    assert report.count('src="data:audio/wav;base64,') >= 20
    assert "held-out sounds" in report and "pictures" not in " ".join(
        re.findall("(?:held-out|training|real) \\w+", report)
    )


@pytest.mark.parametrize(
    ("hole", "a", "b"), [("0.02:0.04", 160, 320), ("0.1:0.11", 800, 880), ("0.05:0.15", 400, 1200)]
)
def test_a_hole_in_a_wave_changes_nothing_else(hole: str, a: int, b: int, wave_run: Path, sounds: Path) -> None:
    """Of a sound three times as long as the model's own; the last hole is longer than those."""
    file = sounds / "beep" / "01.wav"
    made, given = edit(editor(wave_run), [file], Change(hole=hole), each=2), read(file).samples
    for value in made.values:
        x = value.samples
        assert len(x) == len(given) and np.array_equal(x[:a], given[:a]) and np.array_equal(x[b:], given[b:])
        assert np.abs(x[a:b] - given[a:b]).max() > 0.01
    assert not np.array_equal(made.values[0].samples, made.values[1].samples)


def test_a_hole_in_a_long_sound_is_filled_in_its_place(mel_run: Path, tmp_path: Path) -> None:
    """1.3 s, six times as long as the model's own: as long afterwards, and the same outside the hole to the bit."""
    x = np.concatenate([made_up(i) for i in range(1, 16, 2)])[: round(1.3 * RATE)]
    soundfile.write(tmp_path / "long.wav", x, RATE, subtype="FLOAT")
    (made,) = edit(editor(mel_run), [tmp_path / "long.wav"], Change(hole="0.6:0.68"), each=1).values
    a, b = 4_800, 5_440
    assert len(made.samples) == len(x)
    assert np.array_equal(made.samples[:a, 0], x[:a]) and np.array_equal(made.samples[b:, 0], x[b:])
    assert np.abs(made.samples[a:b, 0] - x[a:b]).max() > 0.01


@pytest.mark.parametrize("length", [1_200, 2_000, 9_000])
def test_variations_of_a_sound_are_as_long_as_it(length: int, wave_run: Path) -> None:
    """Longer than the 480 samples of the model: nothing changes at strength 0, all of it at 0.5."""
    given = np.random.default_rng(length).uniform(-0.5, 0.5, (length, 1)).astype(np.float32)
    for strength in (0.0, 0.5):
        one, two = (
            v.samples for v in edit(editor(wave_run), [Sound(given, RATE)], Change(strength=strength), 2).values
        )
        assert len(one) == length
        for part in (slice(0, 240), slice(length - 240, length)):
            far = float(np.abs(one[part] - given[part]).max())
            assert far < 1e-5 if strength == 0 else far > 0.05
        assert np.array_equal(one, two) == (strength == 0)


def test_sounds_too_long_to_blend_are_refused(mel_run: Path, sounds: Path, tmp_path: Path, invoke: Invoke) -> None:
    soundfile.write(tmp_path / "long.wav", np.tile(made_up(1), 8), RATE)
    said = "long.wav lasts 1.* s, but this model's sounds last at most 0.2.* s. Give a part"
    refused(invoke, said, "blend", mel_run, tmp_path / "long.wav", sounds / "beep" / "01.wav", "--out", tmp_path / "o")
    refused(invoke, said, "blend", mel_run, sounds / "beep" / "01.wav", tmp_path / "long.wav", "--out", tmp_path / "o")


def test_what_a_hole_leaves_of_a_spectrum_is_kept(mel_run: Path, sounds: Path) -> None:
    run, file = Run.open(mel_run), sounds / "beep" / "01.wav"
    made = edit(editor(mel_run), [file], Change(hole="0.05:"), each=1)
    before, x = encoded(run, [file]), made.x
    step = run.encoder.space.seconds / run.encoder.space.shape[-1]
    border = 0.05 // step
    assert torch.equal(x[..., : int(border)], before[..., : int(border)])
    assert not torch.equal(x[..., int(border) :], before[..., int(border) :])


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.15])
@pytest.mark.parametrize("length", [120, 480, 1_700])
def test_an_extended_wave_begins_with_the_sound_and_is_longer_by_what_was_asked(
    wave_run: Path, seconds: float, length: int
) -> None:
    """Whether it is shorter than the model's own, as long or longer."""
    given = np.random.default_rng(length).uniform(-0.5, 0.5, (length, 1)).astype(np.float32)
    one, two = (v.samples for v in extended(editor(wave_run), [Sound(given, RATE)], seconds, 2).values)
    for made in (one, two):
        assert len(made) == length + round(seconds * RATE) and np.array_equal(made[:length], given)
        assert np.abs(made[length:]).max() > 0
    assert not np.array_equal(one, two)


def test_a_sound_longer_than_the_models_own_is_kept_whole(mel_run: Path, tmp_path: Path) -> None:
    x = np.concatenate([made_up(i) for i in range(1, 9, 2)])
    file = tmp_path / "long.wav"
    soundfile.write(file, x, RATE, subtype="FLOAT")
    (made,) = extended(editor(mel_run), [file], 0.1, 1).values
    assert abs(made.seconds - len(x) / RATE - 0.1) < 0.035
    ours, theirs = (np.abs(np.fft.rfft(v[: len(x)])) for v in (made.samples[:, 0], x))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.8, "the same tones"


def test_an_extended_spectrum_begins_with_the_sound(mel_run: Path, sounds: Path) -> None:
    file = sounds / "beep" / "01.wav"
    run, given = Run.open(mel_run), read(file)
    made = extended(editor(mel_run), [file], 0.3, 1)
    step = round(run.encoder.space.seconds * RATE) // run.encoder.space.shape[-1]
    places, left = divmod(len(given.samples), step)
    assert made.x.shape[-1] == places + -(-round(0.3 * RATE) // step)
    inside = places - 1  # the last one holds the fade that closes a sound that is encoded alone
    ends = Sound(given.samples[left:], RATE)  # the last column ends with the sound, where the new part begins
    assert torch.equal(made.x[..., :inside], encoded(run, [ends])[..., :inside])


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate", [RATE, 22_050, 44_100])
def test_what_is_given_of_a_sound_stays_to_the_bit(channels: int, rate: int, mel_run: Path, tmp_path: Path) -> None:
    """Whatever the rate and the channels of the file are, and the model's: extended, looped and with a hole."""
    rng, file = np.random.default_rng(rate + channels), tmp_path / "given.wav"
    soundfile.write(file, rng.integers(-30_000, 30_000, (rate // 4 + 1, channels)).astype(np.int16), rate, "PCM_16")
    given, _ = soundfile.read(file, dtype="int16", always_2d=True)
    n, a, b = len(given), round(0.1 * rate), round(0.15 * rate)
    made = {
        "extended": extended(editor(mel_run), [file], 0.3, 1),
        "looped": looped(editor(mel_run), [file], 0.05, 1),
        "filled": edit(editor(mel_run), [file], Change(hole="0.1:0.15"), each=1),
    }
    found = {}
    for name, samples in made.items():
        samples.save(tmp_path / name)
        found[name], written = soundfile.read(tmp_path / name / "0.wav", dtype="int16", always_2d=True)
        assert written == rate and found[name].shape[1] == channels
    assert len(found["extended"]) == n + round(0.3 * rate) and np.array_equal(found["extended"][:n], given)
    assert len(found["looped"]) == n + round(0.05 * rate) and np.array_equal(found["looped"][:n], given)
    assert len(found["filled"]) == n and np.array_equal(found["filled"][:a], given[:a])
    assert np.array_equal(found["filled"][b:], given[b:]) and not np.array_equal(found["filled"][a:b], given[a:b])


@pytest.mark.parametrize("length", [300, 1_700])
def test_a_loop_leads_from_the_end_to_the_beginning_and_keeps_the_sound(wave_run: Path, length: int) -> None:
    """What is drawn depends on both: another beginning or another end changes it."""
    given = np.random.default_rng(length).uniform(-0.5, 0.5, (length, 1)).astype(np.float32)
    begins, ends = given.copy(), given.copy()
    begins[:50], ends[-50:] = 0.9, 0.9

    def loop(x: np.ndarray) -> np.ndarray:
        (made,) = looped(editor(wave_run), [Sound(x, RATE)], 0.02, 1).values
        assert len(made.samples) == length + 160 and np.array_equal(made.samples[:length], x)
        return np.asarray(made.samples[-160:])

    plain = loop(given)
    assert np.array_equal(plain, loop(given))
    assert not np.array_equal(plain, loop(begins)) and not np.array_equal(plain, loop(ends))


def test_sounds_of_several_lengths_are_extended_together(
    mel_run: Path, sounds: Path, invoke: Invoke, tmp_path: Path
) -> None:
    files = [sounds / "beep" / "01.wav", sounds / "hiss" / "04.wav"]
    code, printed, _ = invoke(
        "edit", mel_run, *files, "--extend", 0.2, "-n", 2, *FEW, "--label", "beep", "--out", tmp_path, "--json"
    )
    records = drawn(printed)
    assert code == 0 and [r["picture"] for r in records] == [0, 0, 1, 1]
    for r in records:
        longer = read(tmp_path / r["file"]).seconds - read(files[r["picture"]]).seconds
        assert abs(longer - 0.2) < 0.035
    for tool in (("--hole", "0.05:0.1"), ("--loop", "0.05")):
        out = tmp_path / tool[0][2:]
        assert invoke("edit", mel_run, files[0], *tool, "-n", 1, *FEW, "--out", out)[0] == 0
        assert (out / "0.wav").is_file() and (out / "index.html").is_file()


def test_two_channels_are_learnt_and_drawn(sounds: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = trained(sounds, tmp_path / "two", *FLOW, "--data", "channels=2")
    assert invoke("sample", run, "-n", 1, "--steps", 1, "--out", tmp_path / "out")[0] == 0
    assert read(tmp_path / "out" / "0.wav").samples.shape[1] == 2


def test_sounds_are_written_as_flac_and_one_into_a_file(
    mel_run: Path, sounds: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """The same samples as in the WAV."""
    file = sounds / "beep" / "01.wav"
    for suffix in ("wav", "flac"):
        out = tmp_path / f"one.{suffix}"
        code, printed, _ = invoke("sample", mel_run, "-n", 1, "--steps", 1, "--out", out, "--json")
        assert code == 0 and out.is_file() and drawn(printed)[0]["file"] == out.name
        assert (
            invoke("edit", mel_run, file, "-n", 1, "--strength", 0.5, *FEW, "--out", tmp_path / f"e.{suffix}")[0] == 0
        )
        assert soundfile.info(out).format == suffix.upper() == soundfile.info(tmp_path / f"e.{suffix}").format
    for name in ("one", "e"):
        assert np.array_equal(read(tmp_path / f"{name}.wav").samples, read(tmp_path / f"{name}.flac").samples)
    data = prepare(sounds, "audio", {"format": "flac"})
    names = data.encoder.write([data.train_items[0].value], tmp_path / "folder", ["0"])
    assert names == ["0.flac"] and soundfile.info(tmp_path / "folder" / "0.flac").format == "FLAC"


def test_a_number_is_asked_for_in_an_edit(tmp_path: Path, invoke: Invoke) -> None:
    """Of a wave that is drawn anew: another number, another sound; one that was not learnt is refused."""
    rows = []
    for i in range(24):
        soundfile.write(tmp_path / f"{i:02d}.wav", made_up(i), RATE, subtype="FLOAT")
        rows.append(json.dumps({"file_name": f"{i:02d}.wav", "height": float(i)}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    run = trained(tmp_path, tmp_path / "run", *FLOW)
    changed = ("edit", run, tmp_path / "01.wav", "--strength", 1, "-n", 1, *FEW)
    for value in (2, 20):
        out = tmp_path / f"out{value}"
        code, printed, err = invoke(*changed, "--number", f"height={value}", "--out", out, "--json")
        assert code == 0 and drawn(printed)[0]["height"] == value, err
    refused(invoke, "No number named 'width'", *changed, "--number", "width=2", "--out", tmp_path / "no")


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("d.flac", "one file holds one sound, not 4: give a folder, or request one sound .-n 1.*a suffix, as in d\\."),
        ("d.mp3", "d.mp3: sounds are written to a folder, a single one to a .wav or .flac"),
    ],
)
def test_a_folder_does_not_get_the_name_of_a_file(
    name: str, said: str, mel_run: Path, sounds: Path, invoke: Invoke, tmp_path: Path
) -> None:
    file = sounds / "beep" / "01.wav"
    refused(invoke, said, "sample", mel_run, "-n", 4, "--out", tmp_path / name)
    refused(invoke, said, "edit", mel_run, file, "-n", 4, "--strength", 0.5, "--out", tmp_path / name)
    refused(invoke, said, "blend", mel_run, file, file, "-n", 4, "--out", tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("verb", ["data", "train"])
def test_data_that_is_of_no_use_is_refused(verb: str, tmp_path: Path, invoke: Invoke) -> None:
    """What else cannot be used, and why, is in tests/data/audio."""
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.wav").write_text(f"text number {i}")
    argv = (verb, tmp_path / "in", "--modality", "audio")
    out = ("--out", tmp_path / "run") if verb == "train" else ()
    refused(invoke, "not a supported sound.*if it can be played, convert it", *argv, *out)
    assert not (tmp_path / "run").exists()


def refused(invoke: Invoke, said: str, *argv: object) -> None:
    """Exit code 2, nothing on standard output, a message and no traceback."""
    code, printed, err = invoke(*argv)
    words = " ".join(err.split())
    assert code == 2 and printed == "" and "Traceback" not in err, err
    assert re.search(said, words), words


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("rate=1000000", "at most 48000, given '?1000000'? .accepted: 4000 to 48000"),
        ("names=a,b,c,d", "do not match names=a,b,c,d"),
        ("label_column=mood", "No column 'mood'"),
        ("tempo=3", "Accepted: rate, channels"),
    ],
)
def test_options_that_do_not_fit_are_refused(option: str, said: str, sounds: Path, invoke: Invoke) -> None:
    refused(invoke, said, "data", sounds, "--data", option)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--hole", "9:10"), "extends beyond .*01.wav, which lasts 0.* s. Give START:END within the sound"),
        (("--hole", "0.1:0.3"), "extends beyond .*01.wav, which lasts 0.* s. Give START:END within the sound"),
        (("--hole", "0.1"), "START:END in seconds"),
        (("--hole", "0.1:0.05"), "START:END in seconds"),
        (("--hole", ":"), "is all of .*01.wav"),
        (("--hole", "nan:1"), "START:END in seconds"),
        (("--extend", "0"), r"takes from \S+ to 600 seconds"),
        (("--extend", "-1"), r"takes from \S+ to 600 seconds"),
        (("--extend", "nan"), r"takes from \S+ to 600 seconds"),
        (("--extend", "inf"), r"takes from \S+ to 600 seconds"),
        (("--extend", "1e9"), r"takes from \S+ to 600 seconds"),
        (("--loop", "5"), "takes at most"),
        (("--loop", "0"), r"takes from \S+ to 600 seconds"),
        (("--extend", "1", "--hole", "0.1:0.2"), "cannot be combined"),
        (("--hole", "0.1:0.2", "--label", "cow"), "'cow' was never seen.*beep, hiss"),
    ],
)
def test_changes_that_cannot_be_made_are_refused(
    argv: tuple[str, ...], said: str, mel_run: Path, sounds: Path, invoke: Invoke, tmp_path: Path
) -> None:
    refused(invoke, said, "edit", mel_run, sounds / "beep" / "01.wav", *argv, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tool", [("--hole", "0.1:0.2"), ("--extend", "0.2"), ("--loop", "0.05")])
def test_files_that_are_no_sounds_are_refused(
    tool: tuple[str, str], mel_run: Path, sounds: Path, invoke: Invoke
) -> None:
    said = "text.wav cannot be used as a sound.*not a supported sound"
    refused(invoke, said, "edit", mel_run, sounds / "hiss" / "text.wav", *tool)


def test_what_sounds_cannot_do_is_said_without_pictures(mel_run: Path, invoke: Invoke, tmp_path: Path) -> None:
    refused(invoke, "nor to follow a curve of a sound.*curves=loudness", "sample", mel_run, "-n", 1, "--image", "a.wav")
    refused(
        invoke,
        "only to safetensors, onnx",
        "export",
        mel_run,
        "--to",
        "hf",
        "--out",
        tmp_path / "o",
    )


@pytest.mark.parametrize("tool", [("--hole", "0.1:0.2"), ("--extend", "0.2"), ("--loop", "0.05")])
def test_a_run_of_pictures_has_no_time(
    tool: tuple[str, str], pictures_run: Path, digits: Path, invoke: Invoke, tmp_path: Path
) -> None:
    refused(invoke, "is for sounds", "edit", pictures_run, next((digits / "d0").glob("0*.png")), *tool)
    refused(invoke, "is for sounds", "edit", pictures_run, tmp_path / "none.png", *tool)


def test_a_label_never_heard_is_refused_with_those_that_were(mel_run: Path, invoke: Invoke) -> None:
    refused(invoke, "'cow' was never seen.*beep, hiss", "sample", mel_run, "-n", 1, "--label", "cow")
