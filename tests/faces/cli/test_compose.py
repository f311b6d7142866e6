"""Music in notes on the command line: scores that go on, voices for a melody, and sounds beside what is written."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
import soundfile
from symusic import Score as Midi

from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note
from tests.faces.cli.conftest import Invoke, drawn, parsed, trained

TINY = ("--set", "family.width=16", "--set", "family.layers=1", "--set", "family.heads=2", "--set", "train.batch=4")
LEFT = (*TINY, "--set", "family.kv_heads=2", "--data", "context=64", "--data", "form=events", "--data", "steps=4")
MELODY = MusicScore(tuple(Note(4 * i, 0, 72 + i % 5, 4) for i in range(8)), steps=4)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pieces of two voices, eight quarters each."""
    file = tmp_path_factory.mktemp("data") / "pieces.json"
    found = [[[60 + (i + k // 4) % 7, 48 + (i * k // 4) % 5] for k in range(32)] for i in range(24)]
    file.write_text(json.dumps(found), encoding="ascii")
    return file


@pytest.fixture(scope="session")
def tunes_run(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Transformer on events."""
    return trained(pieces, tmp_path_factory.mktemp("runs") / "tunes", *LEFT)


@pytest.fixture(scope="session")
def voices_run(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "voices"
    return trained(pieces, out, *TINY, "--family", "masked", "--data", "context=64")


@pytest.fixture
def melody(tmp_path: Path) -> Path:
    (tmp_path / "melody.mid").write_bytes(midi_bytes(MELODY))
    return tmp_path / "melody.mid"


def seconds(file: Path | io.BytesIO) -> float:
    samples, rate = soundfile.read(file)
    assert abs(samples).max() > 0.5
    return len(samples) / rate


def pitches(file: Path, track: int = 0) -> list[int]:
    return [n.pitch for n in Midi(file).tracks[track].notes]


def test_scores_go_on_from_a_file(invoke: Invoke, tunes_run: Path, melody: Path, tmp_path: Path) -> None:
    asked = ("compose", tunes_run, melody, "-n", 2, "--set", "length=12", "--seed", 5)
    code, out, err = invoke(*asked, "--out", tmp_path / "made", "--json")
    assert code == 0, err
    records = parsed(out)["scores"]
    assert [(r["file"], r["sound"]) for r in records] == [("0.mid", "0.wav"), ("1.mid", "1.wav")]
    begin = "T120 M4/4\n| C5 :4 C#5 :4 D5 :4 D#5 :4\n| E5 :4 C5 :4 C#5 :4 D5 :4"
    for record in records:
        assert record["text"].startswith(begin) and len(record["text"].split()) <= len(begin.split()) + 12
        heard, known = pitches(tmp_path / "made" / record["file"]), [n.pitch for n in MELODY.notes]
        assert heard[:7] == known[:7] and known[7] in heard[7:], "lower notes may begin with the last one"
        assert seconds(tmp_path / "made" / record["sound"]) > 4  # eight quarters at 120
    page = (tmp_path / "made" / "index.html").read_text()
    assert re.findall(r'<audio [^>]*src="([^"]+)"', page) == ["0.wav", "1.wav"]
    code, out, err = invoke(*asked, "--json")
    assert code == 0 and parsed(out)["scores"] == records, "the same seed gave other scores"


def test_a_melody_is_given_the_other_voice(invoke: Invoke, voices_run: Path, melody: Path, tmp_path: Path) -> None:
    code, out, err = invoke(
        "compose", voices_run, melody, "--harmonise", "--set", "voice=1", "--out", tmp_path / "made"
    )
    assert code == 0 and out == "" and "3 files in" in err, err
    assert "64 words of 70" not in err and "32 words" in err  # of eight quarters of four steps, one other voice
    assert pitches(tmp_path / "made" / "0.mid", -1) == [n.pitch for n in MELODY.notes]
    code, out, err = invoke("compose", voices_run, melody, "--harmonise", "--set", "voice=1")
    assert code == 0 and out.startswith("T120 V2 M4/4\n|"), err


REFUSED = [
    ("compose WORDS MELODY", "makes text, not music in notes. Train on .mid or .abc files"),
    ("compose PICTURES MELODY", "makes image, not music in notes"),
    ("compose TUNES MELODY --harmonise", r"scores in voices.*form=voices.*--family masked"),
    ("compose VOICES MELODY --set voice=1", "Add --harmonise"),
    ("compose VOICES MELODY --harmonise --set voice=7", "No voice 7. This run has 2 voices, counted from 0"),
    ("compose TUNES MELODY -n 0", "the number of scores, from 1. Given: 0"),
    ("compose TUNES nowhere.mid", "nowhere.mid cannot be read as music in notes: .*Give a .mid or .abc file"),
    ("compose TUNES TMP/words.abc", "words.abc cannot be read as music"),
    ("compose TUNES MELODY --set seed=3", "does not know seed when sampling. It accepts: temperature"),
    ("compose TUNES MELODY --set length", "--set takes KEY=VALUE"),
    ("compose TUNES MELODY --out TMP/words.abc", "words.abc exists.*--force"),
    ("complete TUNES TMP/words.abc --line 1 --column 1", "makes music, which cannot be completed at a cursor"),
    (
        "export TUNES --to hf --out TMP/x",
        "cannot be exported. Exports exist for models of text and code",
    ),
    ("sample TUNES --regex a+", "does not make text"),
    ("tune TUNES TEXTS --steps 1 --out TMP/x", "No usable symbolic music"),
]


@pytest.mark.parametrize(("line", "says"), REFUSED)
def test_what_cannot_be_is_refused_in_words(
    line: str,
    says: str,
    invoke: Invoke,
    tunes_run: Path,
    voices_run: Path,
    texts_run: Path,
    pictures_run: Path,
    texts: Path,
    melody: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "words.abc").write_text("no music")
    places = {"TUNES": tunes_run, "VOICES": voices_run, "WORDS": texts_run, "PICTURES": pictures_run}
    places |= {"MELODY": melody, "TMP": tmp_path, "TEXTS": texts}
    argv = []
    for word in line.split(" "):
        head, slash, rest = word.partition("/")
        argv.append(str(places.get(head, head)) + slash + rest)
    code, out, err = invoke(*argv)
    assert code == 2 and out == "" and "Traceback" not in err, err
    assert re.search(says, err.replace("\n", " ")), err


def test_samples_of_scores_are_heard(invoke: Invoke, tunes_run: Path, tmp_path: Path) -> None:
    """From the prompt on; what is written of the texts themselves is as for any text."""
    begin = "T120 M4/4\n| C4 :4 E4 :4"
    asked = ("sample", tunes_run, "-n", 2, "--prompt", begin, "--length", 6)
    code, out, err = invoke(*asked, "--out", tmp_path / "made", "--json")
    assert code == 0, err
    lines = (tmp_path / "made" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == drawn(out) and drawn(out)[0]["prompt"] == begin
    names = sorted(p.name for p in (tmp_path / "made").iterdir())
    assert names == ["0.mid", "0.wav", "1.mid", "1.wav", "index.html", "samples.jsonl"]
    assert pitches(tmp_path / "made" / "0.mid")[:2] == [60, 64] and seconds(tmp_path / "made" / "0.wav") > 1


def test_texts_are_written_as_ever(invoke: Invoke, texts_run: Path, tmp_path: Path) -> None:
    code, _, err = invoke("sample", texts_run, "-n", 2, "--length", 4, "--out", tmp_path / "made")
    assert code == 0, err
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["samples.jsonl"]
    assert "<audio" not in (texts_run / "report.html").read_text()


def test_pages_play_scores(invoke: Invoke, pieces: Path, tmp_path: Path) -> None:
    """Each example of the data, its first half minute."""
    code, _, err = invoke("data", pieces, "--out", tmp_path / "data.html")
    assert code == 0, err
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]+)"', (tmp_path / "data.html").read_text())
    assert len(sounds) == 4
    for sound in sounds:
        assert 3.5 < seconds(io.BytesIO(base64.b64decode(sound))) < 5


def test_a_run_learns_on_from_other_scores(invoke: Invoke, tunes_run: Path, pieces: Path, tmp_path: Path) -> None:
    code, _, err = invoke("tune", tunes_run, pieces, "--steps", 2, "--no-measure", "--out", tmp_path / "tuned")
    assert code == 0, err
    code, out, err = invoke("sample", tmp_path / "tuned", "-n", 1, "--length", 8, "--json")
    assert code == 0 and len(drawn(out)[0]["text"].split()) <= 8, err


def test_a_run_of_scores_is_whole(tunes_run: Path, invoke: Invoke) -> None:
    code, out, err = invoke("verify", tunes_run)
    assert code == 0, out + err
