"""Music in notes: what is read of files, what is said of what cannot be, and scores as text and back."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from symusic import Note as MidiNote
from symusic import Score as Midi
from symusic import Tempo, TimeSignature, Track

from afresh.core import Batch, Cond, Corpus, Item, UserError
from afresh.core.rng import Rng
from afresh.data.files import FileError
from afresh.data.prepare import choose_modality
from afresh.domains.music import abc2midi, files
from afresh.domains.music.abc2midi import Conversion
from afresh.domains.music.compose import _with_holes
from afresh.domains.music.encoder import FIRST, SPECIAL, ScoreEncoder, Transpose
from afresh.domains.music.files import PieceFile, RawPiece, midi_bytes, read_midi, read_pieces, to_score
from afresh.domains.music.modality import MODALITY, MusicOptions, cut
from afresh.domains.music.score import MusicScore, Note, bar_length, from_text, meter_of, to_text, vocabulary
from afresh.runs.sandbox.processes import Sandbox, unavailable
from tests import needs

TUNE = 'X:1\nT:A tune\nM:6/8\nL:1/8\nK:D\nA|"D"d2f fed|(3cde c B2 A|d6|\n'


def midi(path: Path, tracks: list[list[tuple[int, int, int]]], drums: int = 0, **more: list[object]) -> Path:
    """Notes (onset, duration, pitch) in ticks of 480 a quarter; the last track is percussion when `drums` are asked."""
    score = Midi(480)
    for notes in tracks:
        track = Track("t")
        for onset, duration, pitch in notes:
            track.notes.append(MidiNote(onset, duration, pitch, 90))
        score.tracks.append(track)
    if drums:
        track = Track("drums", is_drum=True)
        for i in range(drums):
            track.notes.append(MidiNote(480 * i, 240, 36, 90))
        score.tracks.append(track)
    for meter in more.get("meters", ()):
        score.time_signatures.append(meter)
    for tempo in more.get("tempos", ()):
        score.tempos.append(tempo)
    score.dump_midi(path)
    return path


def read(path: Path, **options: object) -> Corpus:
    return MODALITY.read(path, MusicOptions(**options))  # type: ignore[arg-type]


def made_up(seed: int, voices: int = 0, steps: int = 12) -> MusicScore:
    """Random notes; with `voices` one at a time in each, else chords too. Two meters, the second after two bars."""
    rng = Rng(seed)
    found = []
    meters = ((0, (3, 4)), (6 * steps, (6, 8)))
    for voice in range(voices or 2):
        u = rng.uniform(f"notes/{voice}", torch.arange(40), (4,)).tolist()
        at = 0
        for rest, size, pitch, together in u:
            at += int(rest * 3) * (steps // 4)
            length = 1 + int(size * 2 * steps)
            found.append(Note(at, voice, int(pitch * 128), length))
            at += length if voices or together < 0.7 else 0
    unique = {(n.voice, n.pitch, n.onset): n for n in found}
    kept, last = [], dict[tuple[int, int], int]()
    for note in sorted(unique.values()):
        if last.get((note.voice, note.pitch), 0) <= note.onset:
            kept.append(note)
            last[note.voice, note.pitch] = note.end
    return MusicScore(tuple(kept), meters, 90, steps)


# --------------------------------------------------------------------------- text


@pytest.mark.parametrize("seed", range(8))
def test_events_round_trip_through_text_and_midi(seed: int) -> None:
    score = made_up(seed)
    assert from_text(to_text(score), 12) == (score, [])
    raw = read_midi("a.mid", midi_bytes(score))
    assert to_score(raw, 12, 1_000, Counter()) == score


@pytest.mark.parametrize(("seed", "voices"), [(1, 1), (2, 2), (3, 4)])
def test_voices_round_trip_through_text_and_midi(seed: int, voices: int) -> None:
    score = made_up(seed, voices, steps=4)
    text = to_text(score, voices)
    assert from_text(text, 4, voices) == (score, [])
    assert to_score(read_midi("a.mid", midi_bytes(score)), 4, 1_000, Counter()) == score
    for line in text.split("\n")[1:-1]:
        words = [w for w in line.split()[1:] if w[0] != "M"]
        assert len(words) in (12 * voices, 3 * 4 * voices)  # whole bars, a word a voice and step


def test_the_two_forms_of_a_bar() -> None:
    notes = (Note(0, 0, 67, 2), Note(0, 1, 48, 4), Note(3, 0, 69, 1))
    score = MusicScore(notes, ((0, (1, 4)),), 100, 4)
    assert to_text(score) == "T100 M1/4\n| G4 :2 @0 v2 C3 :4 @3 v1 A4 :1"
    assert to_text(score, 2) == "T100 V2 M1/4\n| G4 C3 _ _ z _ A4 _"
    with pytest.raises(ValueError, match="2 voices"):
        to_text(MusicScore((*notes[:2], Note(1, 0, 72, 3)), steps=4), 2)


@pytest.mark.parametrize(
    ("text", "voices", "problem"),
    [
        ("T120 M4/4 | C4 :12 E4", 0, "no duration"),
        ("T120 M4/4 | C4 D4 :6", 0, "without a duration"),
        ("T120 M4/4 | :6 C4 :6", 0, "is not allowed here"),
        ("T120 M4/4 | @47 C4 :6 D4 :6", 0, "after the end of its bar"),
        ("T120 M4/4 | @48 C4 :6", 0, "is not allowed here"),
        ("T120 M4/4 | C4 :12 @6 C4 :6", 0, "overlap"),
        ("T120 M4/7 | C4 :6", 0, "not a meter"),
        ("T120 M4/4 | G99 :6", 0, "is not allowed here"),
        ("C4 :6", 0, "before the first bar"),
        ("T120 M4/4 |", 0, "no note"),
        ("", 0, "no note"),
        ("T120 V2 M1/4 | C4 E3 _ _ _ _ _", 2, "not complete"),
        ("T120 V2 M1/4 | C4 E3 _ _ | C4 E3", 2, "a bar has 4 words"),
        ("T120 V1 M1/4 | C4 _ _ _ _ _", 1, "more words"),
        ("T120 V1 M1/4 | z _ _ _", 1, "no note that could continue"),
        ("T120 V1 M1/4 | C4 :6", 1, "is not allowed here"),
    ],
)
def test_errors_in_a_text_are_reported(text: str, voices: int, problem: str) -> None:
    steps = 4 if voices else 12
    score, problems = from_text(text, steps, voices)
    assert any(problem in p for p in problems), problems
    encoder = ScoreEncoder(steps=steps, voices=voices, context=64, transpose=0)
    assert not encoder.valid(text) and not encoder.valid(None)
    read_midi("x.mid", midi_bytes(score))  # what there is can be written


def test_any_text_of_known_words_gives_a_score() -> None:
    for voices, steps in ((0, 12), (3, 4)):
        words = vocabulary(steps, voices > 0)
        for seed in range(30):
            rows = (Rng(seed).uniform("words", torch.arange(80)) * len(words)).long().tolist()
            score, problems = from_text(" ".join(words[i] for i in rows), steps, voices)
            assert problems
            midi_bytes(score)


def test_meters_and_their_lengths() -> None:
    assert [bar_length(m, 12) for m in ((4, 4), (6, 8), (1, 8), (9, 8))] == [48, 36, 6, 54]
    assert bar_length((3, 32), 4) == 0 == bar_length((17, 8), 12) == bar_length((4, 5), 12)
    assert meter_of(6, 12) == (1, 8) and meter_of(48, 12) == (4, 4) and meter_of(1, 12) is None


# --------------------------------------------------------------------------- files


@needs.sandbox
def test_a_tune_in_abc_has_its_upbeat_and_no_chords(tmp_path: Path) -> None:
    (tmp_path / "a.abc").write_text(TUNE + "\n" + TUNE.replace("X:1", "X:7").replace("d6", "f6"))
    corpus = read(tmp_path)
    assert [i.source for i in corpus.items] == ["a.abc, tune 1 (A tune)", "a.abc, tune 2 (A tune)"]
    first = corpus.items[0].value.split("\n")
    assert first[:2] == ["T120 M1/8", "| A4 :6 M6/8"]
    assert first[2] == "| D5 :12 F#5 :6 F#5 :6 E5 :6 D5 :6"
    assert first[3].startswith("| C#5 :4 D5 :4 E5 :4")  # a triplet
    assert any("2 chord symbols" in n for n in corpus.notes)


def test_changes_in_converting_a_piece_are_counted(tmp_path: Path) -> None:
    notes = [(0, 480, 60), (530, 240, 62), (960, 0, 64), (960, 480, 65), (1200, 240, 65), (1920, 480 * 20, 67)]
    tempos = [Tempo(0, qpm=96), Tempo(960, qpm=200)]
    midi(tmp_path / "a.mid", [notes, [(0, 480, 40)]], drums=3, tempos=tempos)
    corpus = read(tmp_path / "a.mid", form="events")
    said = " ".join(corpus.notes)
    for what in (
        "3 percussion notes left out",
        "1 notes moved to the grid of 12 steps",
        "1 notes of no length",
        "1 notes shortened to 8 quarters",
        "1 notes shortened because their pitch begins again",
        "1 changes of tempo left out",
        "velocities",
    ):
        assert what in said, said
    assert corpus.items[0].value.startswith("T100 M4/4\n| C4 :12 @0 v2 E2 :12")


def test_a_meter_in_the_middle_of_a_bar_ends_it() -> None:
    track = tuple((480 * i, 480, 60 + i) for i in range(12))
    raw = RawPiece("a", 480, (track,), ((0, (4, 4)), (480 * 6, (3, 4))))
    score = to_score(raw, 12, 100, Counter())
    assert [(b, m) for b, _, m in score.bars()] == [(0, (4, 4)), (48, (2, 4)), (72, (3, 4)), (108, (3, 4))]
    assert to_score(read_midi("b", midi_bytes(score)), 12, 100, Counter()) == score


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mid", b"not MIDI at all", "not a MIDI file, or damaged"),
        ("c.mid", b"MThd garbage", "(invalid midi file!"),
        ("b.mid", b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\1\4\xff", "not a MIDI file, or damaged"),
        ("c.abc", b"just a letter", "no tune"),
        pytest.param("d.abc", b"X:1\nK:C\n", "no notes", marks=needs.sandbox),
        ("e.json", b"[[[60, 64], [60]]]", "all of the same number of voices"),
        ("f.json", b"[[[60], [300]]]", "300 is not a MIDI pitch"),
        ("g.json", b"{broken", "damaged"),
        ("h.abc", b"\xff\xfe\0", "UTF-16"),
    ],
)
def test_unusable_files_are_refused_and_others_read(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    midi(tmp_path / "good.mid", [[(0, 480, 60), (480, 480, 62)]])
    corpus = read(tmp_path)
    assert len(corpus.items) == 1 and corpus.items[0].source.startswith("good.mid")
    assert len(corpus.refused) == 1 and reason in corpus.refused[0].reason, corpus.refused


def test_percussion_alone_and_endless_files_are_refused(tmp_path: Path) -> None:
    midi(tmp_path / "drums.mid", [], drums=4)
    midi(tmp_path / "long.mid", [[(i * 1920, 480, 60) for i in range(1_001)]])
    midi(tmp_path / "odd.mid", [[(0, 480, 60)]], meters=[TimeSignature(0, 33, 4)])
    with pytest.raises(UserError, match="except percussion") as error:
        read(tmp_path, max_bars=1_000)
    assert "max_bars" in str(error.value) and "33/4" in str(error.value)
    assert len(read(tmp_path / "long.mid").items) == 2  # within the usual limit; cut in two to hold some out


@needs.sandbox
def test_errors_in_abc_are_ignored_and_reported(tmp_path: Path) -> None:
    odd = (TUNE + "\nX:2\nT:odd\nM:4/4\nL:1/4\nK:C\nCD[[EF qq|G4|\n").encode()
    mixed, empty = read_pieces([("a.abc", odd), ("b.abc", b"%%include /etc/passwd\n")])
    assert isinstance(mixed, PieceFile) and len(mixed.pieces) + len(mixed.refused) == 2 and mixed.errors
    assert isinstance(empty, FileError) and "no tune" in str(empty)


def test_directives_behind_other_ends_of_lines_stay_where_they_are() -> None:
    """abc2midi knows only ends of lines of bytes 10 and 13; other programs count more characters."""
    hidden = TUNE.replace("K:D\n", "K:D\nw:a\u2028%%include /etc/passwd\x0b%%MIDI program 3\n")
    (tunes,) = [t for t in [files._tunes(hidden.encode())] if not isinstance(t, FileError)]
    assert hidden != TUNE and not any(re.search(r"(?m)^%%", text) for text in tunes.texts())


@needs.sandbox
@pytest.mark.slow
def test_abc2midi_runs_in_the_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever a tune made it do, it would find nothing: here it is a program that looks around, crashes, or waits."""
    program = tmp_path / "abc2midi"
    monkeypatch.setenv("SYMUSIC_ABC2MIDI", str(program))
    monkeypatch.setattr(abc2midi, "PATIENCE", 0.5)
    program.write_text(f"#!/bin/sh\ncat /etc/passwd {tmp_path}/abc2midi && echo Error read\ncat t.abc > t1.mid\n")
    assert abc2midi.convert(["one", "two"]) == [Conversion({1: b"one"}, []), Conversion({1: b"two"}, [])]
    program.write_text(
        "#!/bin/sh\ngrep -q bad t.abc && kill -SEGV $$\ngrep -q late t.abc && sleep 9\ncat t.abc > t1.mid\n"
    )
    good, crashed, late = abc2midi.convert(["good", "bad", "late"])
    assert good == Conversion({1: b"good"}, []) and crashed == Conversion({}, []) and "took more than" in str(late)
    program.write_text("#!/bin/sh\ngrep -q big t.abc && head -c 99999999 /dev/urandom > t1.mid\ncat t.abc > t1.mid\n")
    assert abc2midi.convert(["a", "big", "c"])[::2] == [Conversion({1: b"a"}, []), Conversion({1: b"c"}, [])]


def test_abc2midi_runs_nowhere_but_in_the_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a machine has none, ABC is left out with the reason, and other files are read."""
    monkeypatch.setattr(Sandbox, "check", lambda self: (_ for _ in ()).throw(UserError(unavailable("it needs Linux"))))
    program, trace = tmp_path / "abc2midi", tmp_path / "trace"
    program.write_text(f"#!/bin/sh\necho ran > {trace}\ncat t.abc > t1.mid\n")
    program.chmod(0o700)
    monkeypatch.setenv("SYMUSIC_ABC2MIDI", str(program))
    assert all("in the sandbox alone: give MIDI" in str(each) for each in abc2midi.convert(["one", "two"]))
    (tunes := tmp_path / "tunes").mkdir()
    (tunes / "a.abc").write_text(TUNE)
    midi(tunes / "b.mid", [[(0, 480, 60), (480, 480, 62)]])
    corpus = read(tunes)
    assert [i.source for i in corpus.items] == ["b.mid"] and "it needs Linux" in str(corpus.refused)
    assert not trace.exists()


def test_a_tempo_of_nothing_is_left_out(tmp_path: Path) -> None:
    content = bytearray(midi_bytes(MusicScore((Note(0, 0, 60, 12),), ((0, (4, 4)),), 120, 12)))
    place = content.index(b"\xff\x51\x03") + 3
    content[place : place + 3] = b"\0\0\0"
    (tmp_path / "a.mid").write_bytes(content)
    assert read(tmp_path / "a.mid").items[0].value.startswith("T120 ")


def test_piano_rolls_are_voices_with_their_split(tmp_path: Path) -> None:
    piece = [[72, 60]] * 4 + [[74, -1]] * 4 + [[76, 55]] * 8
    path = tmp_path / "c.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"train": [piece], "valid": [piece[4:]]}).encode()))
    assert MODALITY.sniff(path).score > 0.9
    corpus = read(path)
    assert [i.split for i in corpus.items] == ["train", "validation"]
    begin = "T120 V2 M4/4\n| C5 C4 _ _ _ _ _ _ D5 z _ z _ z _ z E5 G3 _ _"
    assert corpus.items[0].value.startswith(begin)
    encoder = MODALITY.fit(corpus.items[:1], MusicOptions())
    assert encoder.voices == 2 and encoder.settled == {"form": "voices", "steps": 4}


@needs.sandbox
def test_a_zip_is_read_and_a_text_is_not_music(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.abc", TUNE)
        archive.writestr("x/b.abc", TUNE.replace("d6", "e6"))
        archive.writestr("../c.abc", TUNE)
    assert MODALITY.sniff(tmp_path / "a.zip").score == 1
    corpus = read(tmp_path / "a.zip")
    assert len(corpus.items) == 2 and len(corpus.refused) == 1
    (tmp_path / "b.json").write_text('[{"text": "a"}]')
    assert MODALITY.sniff(tmp_path / "b.json").score == 0


@needs.sandbox
@pytest.mark.parametrize("count", [1, 2])
def test_a_folder_of_archives_is_music(count: int, tmp_path: Path) -> None:
    (tmp_path / "SOURCE.md").write_text("where it is from")
    for k in range(count):
        with ZipFile(tmp_path / f"part{k}.zip", "w") as archive:
            archive.writestr("a.abc", TUNE.replace("d6", "dc"[k] + "6"))
            archive.writestr("b.abc", TUNE.replace("d6", "ef"[k] + "6"))
    kind, why = choose_modality(tmp_path, None)
    assert kind.name == "music" and f"{2 * count} of {2 * count} files" in why
    corpus = read(tmp_path)
    assert sorted(i.source.partition(",")[0] for i in corpus.items)[0].startswith("part0/a.abc")
    assert len(corpus.items) == 2 * count and [r.source for r in corpus.refused] == ["SOURCE.md"]
    assert any("Give one if" in n for n in corpus.notes) == (count > 1)


def test_a_folder_of_piano_rolls_is_music_and_one_of_other_json_is_text(tmp_path: Path) -> None:
    rolls, texts = tmp_path / "rolls", tmp_path / "texts"
    rolls.mkdir()
    texts.mkdir()
    (rolls / "SOURCE.md").write_text("where it is from")
    with gzip.open(rolls / "a.json.gz", "wt") as file:
        file.write('{"train": [[[60, 55, 52, 48], [60, 55, 52, 48]]], "valid": [[[60, 55, 52, 48]]]}')
    (texts / "a.json").write_text('[{"text": "one"}, {"text": "two"}]')
    assert choose_modality(rolls, None)[0].name == "music" and choose_modality(texts, None)[0].name == "text"


def test_few_pieces_are_held_out_whole_and_a_single_one_is_divided_at_a_bar(tmp_path: Path) -> None:
    for i in range(5):
        midi(tmp_path / f"{i}.mid", [[(480 * k, 480, 60 + i + k) for k in range(8)]])
    splits = [i.split for i in read(tmp_path).items]
    assert sorted(map(str, splits)) == ["train"] * 4 + ["validation"]
    one = made_up(3)
    first, last = cut(one, 72)
    assert first.end <= 72 and len(first.notes) + len(last.notes) == len(one.notes)
    assert last.meters[0] == (0, (6, 8))


# --------------------------------------------------------------------------- tokens


def test_tokens_of_a_prefix_are_a_prefix_of_the_tokens() -> None:
    encoder = ScoreEncoder(steps=12, voices=0, context=64, transpose=0)
    whole = to_text(made_up(5))
    ids = encoder.encode([Item(whole)]).x[:-1]
    for n in (1, 7, 30):
        begin = encoder.decode(ids[None, :n])[0]
        assert torch.equal(encoder.encode([Item(begin)]).x[:-1], ids[:n])
        assert begin + encoder.decode(ids[None, n:])[0] == whole  # what goes on brings what parts it


def test_unknown_words_are_refused_with_an_example() -> None:
    with pytest.raises(UserError, match=r"'_' is not a word .* looks like this: T120 M4/4"):
        ScoreEncoder(steps=12, voices=0, context=64, transpose=0).encode([Item("T120 M4/4 | C4 _")])


def test_transposing_changes_only_pitches_and_depends_on_the_draw() -> None:
    encoder = ScoreEncoder(steps=12, voices=0, context=64, transpose=5)
    found = encoder.encode([Item(to_text(made_up(6)))])
    assert isinstance(found.vary, Transpose)
    x = found.x.long()[None, :60].repeat(400, 1)
    pitches = (x >= FIRST) & (x < FIRST + 128)
    low, high = x[pitches].min(), x[pitches].max()
    index = torch.arange(400)
    made = found.vary(Batch(x, Cond(400), index), Rng(0))
    assert torch.equal(made.x[~pitches], x[~pitches])
    shift = (made.x - x)[pitches].view(400, -1)
    assert (shift == shift[:, :1]).all()  # intervals stay
    room = [s for s in range(-5, 6) if low + s >= FIRST and high + s < FIRST + 128]
    assert set(shift[:, 0].tolist()) == set(room) | {0}
    still = float((shift[:, 0] == 0).float().mean())  # half keep their key, and those that have no room
    assert still == pytest.approx(1 - 0.5 * (len(room) - 1) / 11, abs=0.07)
    alone = found.vary(Batch(x[9:10], Cond(1), index[9:10]), Rng(0))
    assert torch.equal(alone.x[0], made.x[9])
    assert ScoreEncoder(steps=12, voices=0, context=64, transpose=0).encode([Item("T120 M4/4 | C4 :6")]).vary is None


def test_a_melody_leaves_holes_for_the_other_voices() -> None:
    encoder = ScoreEncoder(steps=4, voices=3, context=64, transpose=0)
    melody = MusicScore((Note(0, 1, 72, 2), Note(2, 1, 74, 1)), steps=4)
    ids, holes = _with_holes(encoder, melody, 1)
    assert holes == 6 and (ids == -1).sum() == 6
    body = ids[encoder.encode([Item("T120 V3 M4/4 |")]).x.numel() - 1 : -1].view(3, 3)
    assert (body[:, [0, 2]] == -1).all()
    assert encoder.decode(body[:, 1][None])[0] == " C5 _ D5"
    assert int(ids[-1]) == SPECIAL["end"]  # a known place after the last hole


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is one of"):
        MusicOptions(steps=5)
    encoder = ScoreEncoder(steps=12, voices=0, context=64, transpose=0)
    assert replace(encoder, voices=4).space.vocab != encoder.space.vocab
    assert "score" in encoder.space.special


def test_little_music_is_transposed_by_default() -> None:
    """Depending on the number of words in the training split. The choice is reported."""
    bar = "\n| C4 :12 D4 :12 E4 :12 F4 :12"  # 9 words
    few, many = ([Item("T120 M4/4" + bar * n)] for n in (10, 22_300))
    for items, chosen in ((few, 5), (many, 0)):
        encoder = MODALITY.fit(items, MusicOptions())
        assert encoder.transpose == chosen and any(f"transpose {chosen}, because there are" in n for n in encoder.notes)
        assert MODALITY.fit(items, MusicOptions(transpose=3)).transpose == 3
        assert MODALITY.fit(items, MusicOptions(transpose=0)).transpose == 0
