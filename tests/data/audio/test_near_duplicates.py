"""Near duplicates of a sound stay on one side of the split or are dropped; other sounds are unaffected."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from afresh.core import Item
from afresh.data.audio.clips import ClipOptions, read_clips
from afresh.data.audio.fingerprints import near_sounds, similar_sounds
from afresh.data.audio.kind import SOUND
from afresh.data.audio.near_duplicates import handle_near_duplicates, merge_groups
from afresh.data.prepare import near_duplicates
from afresh.data.split import split
from tests.data.audio.test_sounds import RATE, changed, melody


def items(count: int, copies: int) -> list[Item]:
    """`count` melodies, and two changed copies of each of the first `copies`."""
    sounds = [melody(i, 0.4) for i in range(count)]
    sounds += [changed(s, how) for how in ("quieter", "later") for s in sounds[:copies]]
    return [Item(s, f"{i}.wav", group=SOUND.digest(s)) for i, s in enumerate(sounds)]


def crossing(every: list[Item]) -> int:
    """The number of near duplicates on both sides of the split."""
    parts = split(every, SOUND)
    border = len(parts.train)
    return sum(p.first < border <= p.second for p in near_duplicates([*parts.train, *parts.heldout], SOUND))


def test_near_duplicates_never_cross_the_split() -> None:
    every = items(30, 12)
    assert crossing(every) > 0, "without groups some of them cross it"
    notes: list[str] = []
    kept, refused = handle_near_duplicates(every, "keep", notes)
    assert not refused and len(kept) == 54 and crossing(kept) == 0
    assert len({i.group for i in kept}) == 30
    assert len(notes) == 1 and notes[0].startswith("24 sounds nearly the same") and "near=drop" in notes[0]
    plain = {i.source: i.group for i in every}
    assert all(i.group == plain[i.source] for i in kept if 12 <= int(i.source[:-4]) < 30), "other groups do not change"


def test_near_duplicates_can_be_dropped() -> None:
    notes: list[str] = []
    kept, refused = handle_near_duplicates(items(30, 12), "drop", notes)
    assert [i.source for i in kept] == [f"{i}.wav" for i in range(30)]
    assert (
        len(refused) == 24
        and refused[0].source == "30.wav"
        and refused[0].reason.startswith("nearly the same as 0.wav (")
    )
    assert notes == ["24 sounds left out, nearly the same as an earlier one"]
    assert not near_duplicates(kept, SOUND)


def test_the_order_of_files_does_not_matter() -> None:
    every = items(20, 8)
    shuffled = random.Random(0).sample(every, len(every))
    one, two = (handle_near_duplicates(x, "keep", [])[0] for x in (every, shuffled))
    assert {i.source: i.group for i in one} == {i.source: i.group for i in two}


def test_groups_are_merged_transitively() -> None:
    every = [Item(melody(i), f"{i}", group=g) for i, g in enumerate("edcba")]
    assert [i.group for i in merge_groups(every, [[0, 1], [3, 4], [1, 4]])] == list("aacaa")


def test_a_sound_similar_to_two_different_sounds_connects_them() -> None:
    """A sound between two others, just similar enough to each: all three stay together."""
    low, high = (np.sin(2 * np.pi * f * np.arange(4_000) / RATE) for f in (300, 1_500))
    sounds = [low + 10 ** (g / 20) * high for g in (-26.0, -18.0, -10.0)]
    sounds = [type(melody(0))((0.3 * x / np.abs(x).max()).astype(np.float32)[:, None], RATE) for x in sounds]
    assert similar_sounds([sounds[0], sounds[2], sounds[1]]) == [[0, 1, 2]] and similar_sounds(sounds[::2]) == []
    assert [(p.first, p.second) for p in near_sounds([sounds[0], sounds[2], sounds[1]])] == [(0, 2)]
    more = [sounds[0], sounds[2], sounds[1], *map(melody, range(9))]
    every = [Item(s, f"{i}", group=f"{i}") for i, s in enumerate(more)]
    assert len({i.group for i in handle_near_duplicates(every, "keep", [])[0][:3]}) == 1


def test_groups_are_not_merged_if_most_sounds_are_near_duplicates() -> None:
    notes: list[str] = []
    x = melody(0)
    every = [Item(changed(x, "quieter") if i else x, f"{i}", group=f"{i}") for i in range(6)]
    every = [Item(type(x)((i.value.samples * (1 - 0.1 * k)).astype(np.float32), RATE), i.source, group=i.group)
             for k, i in enumerate(every)]  # fmt: skip
    kept, _ = handle_near_duplicates(every, "keep", notes)
    assert [i.group for i in kept] == [i.group for i in every] and "too many" in notes[0]


@pytest.mark.parametrize("near", ["keep", "drop"])
def test_clips_of_near_duplicates_share_a_group(near: str, tmp_path: Path) -> None:
    for i in range(14):
        soundfile.write(tmp_path / f"{i:02d}.wav", melody(i, 1.0).samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "copy.wav", 0.5 * melody(3, 1.0).samples, RATE, subtype="FLOAT")
    corpus = read_clips(tmp_path, ClipOptions(seconds=0.3, long="slice", near="keep" if near == "keep" else "drop"))
    groups = {i.source.partition(" ")[0]: i.group for i in corpus.items}
    if near == "keep":
        assert groups["copy.wav"] == groups["03.wav"] and len(set(groups.values())) == 14 and not corpus.refused
    else:
        assert [r.source for r in corpus.refused] == ["copy.wav"] and len(groups) == 14
