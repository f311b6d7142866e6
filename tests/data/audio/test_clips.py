"""Sound files to clips: choices are reported, unused files have reasons, recordings stay on one side of the split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from afresh.core import Corpus, Item, UserError
from afresh.data.audio.clips import ClipOptions, read_clips
from afresh.data.audio.kind import SOUND
from afresh.data.prepare import prepare
from afresh.data.split import split, split_hash
from afresh.domains.audio.modality import MODALITY, AudioOptions
from tests.data.audio.test_sounds import wav

RATE = 8_000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """(T,)"""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """(T,), every sample unlike any other."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def put(folder: Path, name: str, x: np.ndarray, rate: int = RATE, coding: str = "FLOAT") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, x, rate, subtype=coding)


def tones(folder: Path, n: int = 24, seconds: float = 0.2, rate: int = RATE, first: int = 0) -> None:
    for i in range(first, first + n):
        put(folder, f"{i:02d}.wav", tone(seconds, 300 + 20 * i, rate), rate)


def contents(corpus: Corpus) -> dict[str, str]:
    return {i.source: SOUND.digest(i.value) for i in corpus.items}


def said(corpus: Corpus, words: str) -> str:
    """The only note with these words."""
    (found,) = [n for n in corpus.notes if words in n]
    return found


# --------------------------------------------------------------------------- what is chosen


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ([8_000] * 6 + [16_000] * 3, 8_000),  # the most frequent
        ([44_100] * 4, 22_050),  # not above 22,050 unless asked
        ([10_000] * 4, 8_000),  # a usual one
        ([4_000] * 4, 8_000),
    ],
)
def test_the_rate_is_chosen_from_the_files_and_reported(tmp_path: Path, rates: list[int], chosen: int) -> None:
    for i, rate in enumerate(rates):
        put(tmp_path, f"{i}.wav", tone(0.2, 300 + 20 * i, rate), rate)
    corpus = read_clips(tmp_path, ClipOptions())
    assert {i.value.rate for i in corpus.items} == {chosen} and len(corpus.items) == len(rates)
    line = said(corpus, f"rate {chosen:,} Hz")
    assert all(f"{r:,} Hz" in line for r in rates) and line.endswith("(`data.rate`)")


def test_a_rate_above_all_files_is_reported_to_gain_nothing(tmp_path: Path) -> None:
    tones(tmp_path)
    corpus = read_clips(tmp_path, ClipOptions(rate=16_000))
    assert {i.value.rate for i in corpus.items} == {16_000} and "8,000 Hz" in said(corpus, "gains nothing")


def test_channels_are_mixed_unless_two_are_requested(tmp_path: Path) -> None:
    left, right = tone(0.2, 300), tone(0.2, 500)
    put(tmp_path, "both.wav", np.stack([left, right], 1))
    put(tmp_path, "one.wav", left)
    how = ClipOptions(trim=False)
    corpus = read_clips(tmp_path, how)
    assert "channels of 1 of 2 files are mixed" in said(corpus, "mono") and "channels=2" in said(corpus, "mono")
    found = {i.source: i.value.samples for i in corpus.items}
    assert np.allclose(found["both.wav"][:, 0], (left + right) / 2, atol=1e-6)
    two = {i.source: i.value.samples for i in read_clips(tmp_path, ClipOptions(trim=False, channels=2)).items}
    assert np.array_equal(two["both.wav"], np.stack([left, right], 1))
    assert np.array_equal(two["one.wav"], np.stack([left, left], 1))


def test_clips_fit_nearly_all_sounds_and_the_others_are_cut(tmp_path: Path) -> None:
    for i in range(39):
        put(tmp_path, f"{i:02d}.wav", noise(0.2 + 0.001 * i, i))
    put(tmp_path, "long.wav", noise(1.5, 99))
    corpus = read_clips(tmp_path, ClipOptions())
    lengths = {i.source: len(i.value.samples) for i in corpus.items}
    assert len(lengths) == 40 and lengths["long.wav"] == lengths["38.wav"] == round(0.238 * RATE)
    assert lengths["00.wav"] == 1_600
    assert "0.238 s" in said(corpus, "`data.seconds`") and "1 of 40" in said(corpus, "their beginning is used")


def drum(seconds: float, seed: int) -> np.ndarray:
    """(T,), noise that has lost 40 dB after a second."""
    x = noise(seconds, seed)
    return (x * 10 ** (-2 * np.arange(len(x)) / RATE)).astype(np.float32)


def test_fading_sounds_are_cut_and_their_tails_make_no_clips(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path, f"{i:02d}.wav", drum(0.3 if i < 14 else 3.0, i))
    corpus = read_clips(tmp_path, ClipOptions(trim=False))
    found = {i.source: i.value.samples[:, 0] for i in corpus.items}
    assert len(found) == len(corpus.items) == 20 and corpus.settled["long"] == "cut"
    assert len(found["19.wav"]) == 2 * RATE and len(found["00.wav"]) == round(0.3 * RATE)
    assert "6 of 6 sounds" in said(corpus, "longer than a clip fade")
    whole, rest = drum(3.0, 19)[: 2 * RATE], found["19.wav"]
    assert np.array_equal(rest[:-240], whole[:-240]) and abs(rest[-1]) < 1e-3 * np.abs(whole).max()
    asked = read_clips(tmp_path, ClipOptions(trim=False, long="slice"))
    assert len(asked.items) == 14 + 6 * 2, "what is asked for is done"


@pytest.mark.parametrize("kind", ["goes on", "most go on", "long"])
def test_continuous_sounds_are_sliced(tmp_path: Path, kind: str) -> None:
    """So is a long recording whose beginning is loud, such as a microphone that was touched."""
    for i in range(20):
        x = noise(4.0, i)
        if kind == "most go on" and i < 10:
            x = drum(4.0, i)
        if kind == "long":
            x = np.concatenate([noise(0.5, i), 0.02 * noise(11.0, 40 + i)])
        put(tmp_path, f"{i:02d}.wav", x)
    corpus = read_clips(tmp_path, ClipOptions(trim=False))
    assert corpus.settled["long"] == "slice" and len(corpus.items) >= 20 * 3
    assert not [n for n in corpus.notes if "fade" in n]


def test_the_treatment_of_long_sounds_is_a_settled_option(tmp_path: Path) -> None:
    for i in range(40):
        put(tmp_path, f"{i:02d}.wav", drum(0.3 if i < 30 else 3.0, i))
    found = prepare(tmp_path, "audio")
    assert found.options.long == "cut"
    assert prepare(tmp_path, "audio", found.options.model_dump(exclude_none=True)).split_hash == found.split_hash


def test_a_few_samples_at_the_end_of_a_recording_make_no_clip(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path, f"{i:02d}.wav", np.concatenate([noise(1.0, i), noise(0.001, 50 + i)]))
    corpus = read_clips(tmp_path, ClipOptions(seconds=0.5, overlap=0, trim=False))
    assert len(corpus.items) == 24
    whole = read_clips(tmp_path, ClipOptions(seconds=1.0, long="slice", trim=False))
    assert [len(i.value.samples) for i in whole.items] == [RATE] * 12


def test_the_use_of_memory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones(tmp_path)
    monkeypatch.setattr("afresh.data.audio.clips.MUCH", 4096)
    found = said(read_clips(tmp_path, ClipOptions()), "GiB of memory")
    assert "0.0013 hours of sound use" in found  # 24 of 0.2 s


def test_sounds_that_need_more_memory_than_is_free_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of silence in FLAC has a thousandth of the size of its samples."""
    put(tmp_path, "short.wav", tone(0.2))
    soundfile.write(tmp_path / "long.flac", np.zeros(60 * RATE, np.int16), RATE)
    assert (tmp_path / "long.flac").stat().st_size < 60 * RATE / 50
    monkeypatch.setattr("afresh.data.audio.clips.available_memory", lambda: 2.5 * 4 * 59 * RATE)
    with pytest.raises(UserError, match=r"the longest, long.flac, .* GB of memory at .* Hz, and .* are free"):
        read_clips(tmp_path, ClipOptions())
    content = bytearray((tmp_path / "long.flac").read_bytes())
    content[21] &= 0xF0  # the number of samples is not declared (RFC 9639, section 8.2)
    content[22:26] = bytes(4)
    (tmp_path / "long.flac").write_bytes(content)
    refused = {r.source: r.reason for r in read_clips(tmp_path, ClipOptions()).refused}
    assert "more memory than is free" in refused["long.flac"]


def test_clips_of_long_recordings_overlap_and_cover_all_samples(tmp_path: Path) -> None:
    recordings = {f"{i:02d}.wav": noise(1.0 + 0.07 * i, i) for i in range(12)}
    for name, x in recordings.items():
        put(tmp_path, name, x)
    corpus = read_clips(tmp_path, ClipOptions(seconds=0.5, overlap=0.5, trim=False))
    assert {len(i.value.samples) for i in corpus.items} == {4_000}
    for name, x in recordings.items():
        clips = [(i.source, i.value.samples[:, 0]) for i in corpus.items if i.source.startswith(name)]
        starts = [round(float(s.split("(")[1].split()[0]) * RATE) for s, _ in clips]
        covered = np.zeros(len(x), bool)
        for start, (_, clip) in zip(starts, clips, strict=True):
            at = min(range(max(0, start - 40), start + 41), key=lambda a: abs(x[a] - clip[0]))  # said to 10 ms
            assert np.array_equal(x[at : at + 4_000], clip)
            covered[at : at + 4_000] = True
        assert covered.all()
    assert "12 sounds longer than a clip" in said(corpus, "long=cut")


def test_settled_options_give_the_same_clips_and_split_again(tmp_path: Path) -> None:
    for i in range(60):
        put(tmp_path, f"{i % 2}/{i:02d}.wav", noise(0.15 + 0.002 * i, i, 16_000), 16_000)
    put(tmp_path, "0/other.wav", noise(0.2, 100, 44_100), 44_100)
    found = prepare(tmp_path, "audio")
    assert found.options.rate == 16_000 and found.options.channels == 1 and found.options.seconds is not None
    again = prepare(tmp_path, "audio", found.options.model_dump(exclude_none=True))
    assert again.split_hash == found.split_hash and again.encoder.space == found.encoder.space
    assert again.options == found.options


def test_other_data_is_read_with_the_settled_options(tmp_path: Path) -> None:
    tones(tmp_path / "a", rate=16_000)
    for i in range(3):
        put(tmp_path / "b", f"{i}.wav", np.stack([noise(0.9, i, 48_000)] * 2, 1), 48_000)
    found = prepare(tmp_path / "a", "audio")
    other = MODALITY.read(tmp_path / "b", found.options)
    assert {(i.value.rate, i.value.samples.shape[1]) for i in other.items} == {(16_000, 1)}
    assert max(len(i.value.samples) for i in other.items) == 3_200
    assert found.encoder.encode(other.items).x.shape[1:] == found.encoder.space.shape


def test_sounds_of_a_few_hundredths_of_a_second_make_a_run_that_opens_again(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path / "in", f"{i:02d}.wav", noise(0.03, i))
    found = prepare(tmp_path / "in", "audio")
    found.encoder.save(tmp_path / "out")
    assert MODALITY.load(tmp_path / "out").space == found.encoder.space
    assert prepare(tmp_path / "in", "audio", found.options.model_dump(exclude_none=True)).split_hash == found.split_hash


# --------------------------------------------------------------------------- nothing goes without a line


def test_every_file_is_used_or_refused_with_a_reason(tmp_path: Path) -> None:
    tones(tmp_path)
    put(tmp_path, "silent.wav", np.zeros(2_000, np.float32))
    put(tmp_path, "empty.wav", np.zeros(0, np.float32))
    put(tmp_path, "nan.wav", np.where(np.arange(2_000) == 900, np.nan, 0.1).astype(np.float32))
    put(tmp_path, "short.wav", tone(0.01))
    (tmp_path / "nothing.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is a text" * 50)
    (tmp_path / "many.wav").write_bytes(wav(channels=65_000))
    (tmp_path / "notes.txt").write_text("recorded in spring")
    corpus = read_clips(tmp_path, ClipOptions())
    reasons = {r.source: r.reason for r in corpus.refused}
    wanted = {
        "silent.wav": "silent",
        "empty.wav": "0 samples",
        "nan.wav": "1 of its samples are not finite",
        "short.wav": "too short",
        "nothing.wav": "empty file",
        "text.wav": "not a supported sound",
        "many.wav": "channels",
        "notes.txt": "unsupported sound format",
    }
    assert set(reasons) == set(wanted) and len(corpus.items) == 24
    assert all(words in reasons[name] for name, words in wanted.items()), reasons


def test_clipped_files_are_used_and_reported(tmp_path: Path) -> None:
    tones(tmp_path)
    put(tmp_path, "loud.wav", np.clip(tone(0.2, 100, level=3.0), -1, 1), coding="PCM_16")
    corpus = read_clips(tmp_path, ClipOptions())
    assert len(corpus.items) == 25 and "1, such as loud.wav" in said(corpus, "clipped")


def test_damaged_files_are_used_as_far_as_possible_and_reported(tmp_path: Path) -> None:
    tones(tmp_path, seconds=0.5)
    file = tmp_path / "03.wav"
    file.write_bytes(file.read_bytes()[:8_000])
    corpus = read_clips(tmp_path, ClipOptions())
    assert len(corpus.items) == 24 and "03.wav" in said(corpus, "shorter than its header says")


def test_damaged_files_can_stop_reading(tmp_path: Path) -> None:
    tones(tmp_path, seconds=0.5)
    put(tmp_path, "silent.wav", np.zeros(2_000, np.float32))
    (tmp_path / "notes.txt").touch()
    assert len(read_clips(tmp_path, ClipOptions(damaged="stop")).items) == 24  # silence and other files are no damage
    file = tmp_path / "03.wav"
    file.write_bytes(file.read_bytes()[:8_000])
    (tmp_path / "text.wav").write_text("this is a text" * 50)
    with pytest.raises(
        UserError, match=r"2 inputs cannot be read completely.*\n  text.wav: .*\n  03.wav: shorter than"
    ):
        read_clips(tmp_path, ClipOptions(damaged="stop"))


def test_silence_around_sounds_of_several_lengths_is_trimmed_with_a_note(tmp_path: Path) -> None:
    quiet = np.zeros(4_000, np.float32)
    lengths = [9_600 + 200 * i for i in range(4)]
    for i, length in enumerate(lengths):
        put(tmp_path, f"{i}.wav", np.concatenate([quiet, tone(0.2, 300 + 50 * i), quiet, quiet])[:length])
    corpus = read_clips(tmp_path, ClipOptions())
    assert all(1_600 <= len(i.value.samples) <= 1_600 + 2 * 480 for i in corpus.items)
    note = said(corpus, "silence cut off")
    assert "4 of 4 sounds" in note and "3.wav" in note and "data.trim=false" in note
    kept = read_clips(tmp_path, ClipOptions(trim=False))
    assert [len(i.value.samples) for i in kept.items] == lengths and not any("silence cut" in n for n in kept.notes)


@pytest.mark.parametrize(("rate", "length"), [(44_100, 88_200), (44_100, 81_415), (8_000, 7_385)])
def test_loops_of_one_length_keep_it_to_the_sample(rate: int, length: int, tmp_path: Path) -> None:
    """With silence after the last hit, which all have at another place; after resampling, as many samples as rounding
    gives."""
    for i in range(6):
        put(tmp_path, f"{i}.wav", np.pad(tone(0.3 + 0.05 * i, 200, rate), (0, length))[:length], rate, "PCM_16")
    corpus = read_clips(tmp_path, ClipOptions())
    expected = int(length * corpus.settled["rate"] / rate + 0.5)
    assert {len(i.value.samples) for i in corpus.items} == {expected} and corpus.settled["trim"] is False
    assert "have this length" in said(corpus, "data.trim=true")
    encoder = MODALITY.fit(corpus.items, AudioOptions(**corpus.settled))
    drawn = encoder.decode(torch.rand(2, *encoder.space.shape) * 2 - 1)
    silent = encoder.decode(torch.full((1, *encoder.space.shape), -1.0))
    assert {len(s.samples) for s in [*drawn, *silent]} == {expected}
    again = read_clips(tmp_path, ClipOptions(**corpus.settled))
    assert contents(again) == contents(corpus)


def test_a_few_loops_that_are_shorter_are_padded_with_a_note(tmp_path: Path) -> None:
    for i in range(40):
        put(tmp_path, f"{i:02d}.wav", noise(0.5 if i else 0.4, i))
    corpus = read_clips(tmp_path, ClipOptions())
    encoder = MODALITY.fit(corpus.items, AudioOptions(**corpus.settled))
    assert {len(s.samples) for s in encoder.decode(torch.zeros(1, *encoder.space.shape))} == {4_000}
    assert any("1 sound of 40 padded with silence to the 0.5 s" in n and "at most 0.1 s" in n for n in encoder.notes)


def test_silent_clips_are_left_out_and_reported(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path, f"{i:02d}.wav", np.concatenate([noise(0.5, i), np.zeros(8_000, np.float32), noise(0.5, 50 + i)]))
    corpus = read_clips(tmp_path, ClipOptions(seconds=0.25, overlap=0))
    line = said(corpus, "of long sounds left out")
    assert f"{12 * 8 - len(corpus.items):,} silent clips" in line and "00.wav (" in line
    assert len(corpus.items) == 12 * 4


def test_clips_with_only_background_noise_are_left_out_by_default(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path, f"{i:02d}.wav", np.concatenate([noise(0.5, i), 1e-3 * noise(1.0, 20 + i), noise(0.5, 50 + i)]))
    corpus = read_clips(tmp_path, ClipOptions(seconds=0.25, overlap=0))
    assert len(corpus.items) == 12 * 4 and "trim=false" in said(corpus, "48 silent clips of long sounds left out")
    assert len(read_clips(tmp_path, ClipOptions(seconds=0.25, overlap=0, trim=False)).items) == 12 * 8


def test_sounds_whose_channels_cancel_are_refused(tmp_path: Path) -> None:
    tones(tmp_path)
    put(tmp_path, "anti.wav", np.stack([tone(0.2), -tone(0.2)], 1))
    corpus = read_clips(tmp_path, ClipOptions())
    assert [r.source for r in corpus.refused] == ["anti.wav"] and "channels=2" in corpus.refused[0].reason
    assert "silent when its 2 channels are mixed: they cancel" in corpus.refused[0].reason
    both = read_clips(tmp_path, ClipOptions(channels=2))
    assert not both.refused and len(both.items) == len(corpus.items) + 1


def test_loudness_is_scaled_to_the_option(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path, f"{i}.wav", tone(1.0, 997, level=0.02 * 2**i))
    peaks = [np.abs(i.value.samples).max() for i in read_clips(tmp_path, ClipOptions(loudness=-23.0)).items]
    assert np.allclose(peaks, 10 ** ((-23 + 3.01) / 20), rtol=0.02)


def test_data_without_a_usable_sound_is_refused_with_the_reasons(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path, f"{i}.wav", np.zeros(2_000, np.float32))
    with pytest.raises(UserError, match=r"No usable sound.*\n  3 .wav: silent") as error:
        read_clips(tmp_path, ClipOptions())
    assert "WAV, FLAC" in str(error.value)


# --------------------------------------------------------------------------- what stays on one side


def sides(corpus: Corpus) -> tuple[list[Item], list[Item]]:
    found = split(corpus.items, SOUND)
    assert found.train and found.heldout
    return found.train, found.heldout


def test_clips_of_one_recording_never_cross_the_split(tmp_path: Path) -> None:
    for i in range(40):
        put(tmp_path, f"{i:02d}.wav", noise(1.0, i))
    train, heldout = sides(read_clips(tmp_path, ClipOptions(seconds=0.3)))
    files = [{i.source.split()[0] for i in side} for side in (train, heldout)]
    assert not files[0] & files[1] and len(files[0] | files[1]) == 40
    assert len(train) + len(heldout) > 80


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_long_recordings_are_divided_in_time_without_shared_samples(tmp_path: Path, count: int) -> None:
    for i in range(count):
        once = np.random.default_rng(i).permutation(48_000) / 48_000 - 0.5  # no value occurs twice
        put(tmp_path, f"{i}.wav", once.astype(np.float32))
    corpus = read_clips(tmp_path, ClipOptions(seconds=0.5, overlap=0.5, trim=False))
    train, heldout = sides(corpus)
    for i in range(count):
        values = [
            {float(v) for k in side if k.source[0] == str(i) for v in k.value.samples[:, 0]}
            for side in (train, heldout)
        ]
        assert not values[0] & values[1] and len(values[0]) + len(values[1]) == 48_000
    assert {i.source[0] for i in heldout} == {str(i) for i in range(count)}
    assert f"each of the {count} is held out" in said(corpus, "the last tenth of each")


def test_a_group_stays_on_one_side_even_where_recordings_are_few_and_long(tmp_path: Path) -> None:
    for i in range(8):
        put(tmp_path, f"{'abcd'[i // 2]}_{i}.wav", noise(3.0, i))
    train, heldout = sides(read_clips(tmp_path, ClipOptions(seconds=0.5, names="speaker,-", group="speaker")))
    speakers = [{i.source[0] for i in side} for side in (train, heldout)]
    assert not speakers[0] & speakers[1] and len(speakers[0] | speakers[1]) == 4


def test_speakers_stay_on_one_side_if_they_are_the_group(tmp_path: Path) -> None:
    for i in range(60):
        put(tmp_path, f"{i // 12 % 3}_speaker{i % 12}_{i}.wav", noise(0.2, i))
    corpus = read_clips(tmp_path, ClipOptions(names="digit,speaker,-", group="speaker"))
    train, heldout = sides(corpus)
    speakers = [{i.source.split("_")[1] for i in side} for side in (train, heldout)]
    assert not speakers[0] & speakers[1] and len(speakers[0] | speakers[1]) == 12
    assert len(train) + len(heldout) == 60 and {i.labels["digit"] for i in train} == {"0", "1", "2"}
    assert "12 groups" in said(corpus, "not a condition") and not any("speaker" in i.labels for i in corpus.items)
    with pytest.raises(UserError, match="Omit one of the two"):
        read_clips(tmp_path, ClipOptions(names="digit,speaker,-", group="speaker", label_column="speaker"))


def test_folders_of_train_and_test_are_the_split(tmp_path: Path) -> None:
    for side, n in (("train", 12), ("test", 4)):
        for i in range(n):
            put(tmp_path, f"{side}/{'ab'[i % 2]}/{i}.wav", noise(1.0, i + 100 * (side == "test")))
    train, heldout = sides(read_clips(tmp_path, ClipOptions(seconds=0.4)))
    assert {i.source.split("/")[0] for i in train} == {"train"} and {i.source[:4] for i in heldout} == {"test"}
    assert {i.labels["label"] for i in heldout} == {"a", "b"}


def test_only_one_group_is_refused(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path, f"anna_{i}.wav", noise(0.2, i))
    corpus = read_clips(tmp_path, ClipOptions(names="speaker,-", group="speaker"))
    with pytest.raises(UserError, match=r"speaker=anna.*Give items of other groups"):
        split(corpus.items, SOUND)


def test_an_unknown_group_column_lists_the_columns(tmp_path: Path) -> None:
    tones(tmp_path)
    with pytest.raises(UserError, match=r"No column 'speaker'.*Columns found: none"):
        read_clips(tmp_path, ClipOptions(group="speaker"))
    (tmp_path / "metadata.csv").write_text("file_name,place\n00.wav,here\n01.wav,there\n")
    with pytest.raises(UserError, match="Columns found: place"):
        read_clips(tmp_path, ClipOptions(group="speaker"))


# --------------------------------------------------------------------------- what is said of them


def rows(folder: Path, every: Mapping[str, Mapping[str, Any]]) -> None:
    lines = (json.dumps({"file_name": name, **row}) for name, row in every.items())
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def test_captions_labels_and_numbers_come_from_metadata(tmp_path: Path) -> None:
    tones(tmp_path)
    table = {
        f"{i:02d}.wav": {"text": f"a tone number {i % 3}", "place": "ab"[i % 2], "height": 0.37 * i} for i in range(23)
    }
    rows(tmp_path, table | {"gone.wav": {"text": "nothing"}})
    corpus = read_clips(tmp_path, ClipOptions())
    found = {i.source: i for i in corpus.items}
    assert found["05.wav"].caption == "a tone number 2" and dict(found["05.wav"].labels) == {"place": "b"}
    assert found["05.wav"].numbers["height"] == pytest.approx(1.85)
    assert found["23.wav"].caption is None and "1 of 24" in said(corpus, "caption missing")
    assert [(r.source, "gone.wav" in r.reason) for r in corpus.refused] == [("metadata.jsonl, row 24", True)]


def test_every_clip_of_a_recording_has_its_labels(tmp_path: Path) -> None:
    for i in range(12):
        put(tmp_path, f"{i:02d}.wav", noise(1.0, i))
    rows(tmp_path, {f"{i:02d}.wav": {"place": "ab"[i % 2], "text": f"scene {i % 2}"} for i in range(12)})
    for item in read_clips(tmp_path, ClipOptions(seconds=0.3)).items:
        i = int(item.source[:2])
        assert dict(item.labels) == {"place": "ab"[i % 2]} and item.caption == f"scene {i % 2}"


def test_the_split_depends_on_neither_order_nor_names_of_files(tmp_path: Path) -> None:
    for i in range(40):
        put(tmp_path / "a", f"{i:02d}.wav", noise(0.2, i))
        put(tmp_path / "b", f"{99 - i:02d}_renamed.wav", noise(0.2, i))
    first, second = (read_clips(tmp_path / f, ClipOptions()) for f in "ab")
    assert split_hash(split(first.items, SOUND), SOUND) == split_hash(split(second.items, SOUND), SOUND)


def test_impossible_options_are_refused() -> None:
    for wrong in ({"rate": 1_000_000}, {"channels": 6}, {"seconds": 0}, {"overlap": 1}, {"long": "loop"}, {"x": 1}):
        with pytest.raises(ValueError):
            AudioOptions(**wrong)
