"""Near duplicates of every kind are left out, or stay together; what is found is what a comparison of all finds."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from afresh.core import Sound, UserError
from afresh.data.audio.kind import SOUND
from afresh.data.collected import REJECTED, rows
from afresh.services.collect import assemble
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.near import searches, with_prints
from afresh.services.collect.near.finder import CROWD, Buckets, Finder
from afresh.services.collect.record import Record


def prose(seed: int, words: int = 120) -> str:
    generator = np.random.default_rng(seed)
    return " ".join("".join(chr(97 + c) for c in generator.integers(0, 26, 5)) for _ in range(words))


def edited(text: str, at: int = 60) -> str:
    words = text.split()
    return " ".join([*words[:at], "edited", *words[at + 1 :]])


def scene(seed: int, side: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def image_file(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def melody(seed: int, loud: float = 0.5, silence: int = 0) -> bytes:
    generator = np.random.default_rng(seed)
    time = np.arange(1_600) / 8_000
    notes = [np.sin(2 * np.pi * f * time) * np.exp(-9 * time) for f in generator.uniform(200, 3_000, 4)]
    wave = np.concatenate([np.zeros(silence), *notes]).astype(np.float32) * loud
    return SOUND.encode(Sound(wave[:, None], 8_000))


def written(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def left_out(dataset: Path) -> dict[str, str]:
    return {r["where"]: r["reason"] for r in pq.read_table(dataset / REJECTED).to_pylist() if r["rule"] == "near"}


def items(dataset: Path) -> dict[str, dict[str, Any]]:
    return {r["where"]: r for r in rows(dataset)}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Ten texts, programs, images and sounds each, with a near duplicate of the third of each."""
    files: dict[str, bytes | str] = {}
    for i in range(10):
        files |= {f"{i}.txt": prose(i), f"{i}.py": prose(50 + i).replace(" ", " = "), f"{i}.png": image_file(scene(i))}
        files[f"{i}.wav"] = melody(i)
    files |= {"x.txt": edited(prose(2)), "x.py": edited(prose(52)).replace(" ", " = ")}
    files |= {"x.jpg": image_file(scene(2, 80), "JPEG"), "x.wav": melody(2, 0.1, 900)}
    return written(tmp_path / "mixed", files)


def test_near_duplicates_of_every_kind_are_left_out(mixed: Path, tmp_path: Path) -> None:
    made = gather([place_of(str(mixed))], tmp_path / "set")
    assert made["items"] == {"text": 10, "code": 10, "image": 10, "audio": 10}
    reasons = left_out(tmp_path / "set")
    assert {where: reason.partition("equal to ")[2] for where, reason in reasons.items()} == {
        "x.txt": "2.txt",
        "x.py": "2.py",
        "x.jpg": "2.png",
        "x.wav": "2.wav",
    }
    assert reasons["x.txt"].startswith("91.7%")  # 111 of 121 runs of five words are shared
    assert not (tmp_path / "set" / "work" / assemble.SCRATCH).exists()


def test_near_duplicates_are_kept_on_one_side(mixed: Path, tmp_path: Path) -> None:
    gather([place_of(str(mixed))], tmp_path / "set", assembly={"near": "keep", "heldout": 0.5})
    found = items(tmp_path / "set")
    assert len(found) == 44
    for one, other in (("x.txt", "2.txt"), ("x.py", "2.py"), ("x.jpg", "2.png"), ("x.wav", "2.wav")):
        assert found[one]["cluster"] == found[other]["cluster"] == found[other]["id"]
        assert found[one]["split"] == found[other]["split"]
    assert len({r["split"] for r in found.values()}) == 2


def test_what_is_like_items_of_both_sides_is_left_out(tmp_path: Path) -> None:
    text = prose(1)
    files = {"train/a.txt": text, "validation/b.txt": edited(text), "train/c.txt": prose(2)}
    folder = written(tmp_path / "texts", dict(files))
    gather([place_of(str(folder))], tmp_path / "set", assembly={"near": "keep"})
    assert left_out(tmp_path / "set") == {
        "validation/b.txt": "91.7% equal to train/a.txt, which is on the other side of the split"
    }


def test_sources_that_are_added_later_only_add_near_duplicates(tmp_path: Path) -> None:
    text = prose(1)
    first = written(tmp_path / "first", {"a.txt": text, "b.txt": edited(edited(edited(text, 20), 70), 100)})
    between = written(tmp_path / "second", {"c.txt": edited(edited(text, 20), 70)})
    for near in ("drop", "keep"):
        into = tmp_path / near
        gather([place_of(str(first))], into, assembly={"near": near})
        before = list(rows(into))
        gather([place_of(str(between))], into)
        assert list(rows(into))[: len(before)] == before


def test_conversations_are_compared_by_what_is_said(tmp_path: Path) -> None:
    def chat(question: str, answer: str) -> Record:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return Record("conversation", "", "", text=json.dumps(messages))

    records = [chat("Yes?", "No."), chat("How?", "Well."), chat(prose(1), prose(2)), chat(edited(prose(1)), prose(2))]
    assert pairs_of(records) == [(2, 3)]
    assert pairs_of([chat(prose(1), ""), Record("text", "", "", text=prose(1))]) == []


def pairs_of(records: Sequence[Record]) -> list[tuple[int, int]]:
    """(earliest, later) near duplicates, by a finder that is asked in stretches of three."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        finder = Finder(Path(folder))
        table = [{"kind": r.kind, "text": r.text, "near": r.near} for r in with_prints(records, [])]
        finder.add([r["kind"] for r in table], [r["near"] for r in table])
        finder.sort()
        for start in range(0, len(table), 3):
            finder.advance(table[start : start + 3])
            for i in range(len(table[start : start + 3])):
                match = next(finder.matches(i), None)
                if match:
                    found.append((match[0]["number"], start + i))
                else:
                    finder.keep(i, {"number": start + i})
    return found


def test_what_has_no_words_or_cannot_be_decoded_is_like_nothing() -> None:
    texts = [Record("text", "", "", text=t) for t in ("...", "!!!", "", "?")]
    broken = [Record(kind, "", "", content=b"nothing") for kind in ("image", "audio", "image", "audio")]
    assert (
        pairs_of([*texts, *broken, Record("music", "", "", content=b"a"), Record("music", "", "", content=b"a")]) == []
    )


def test_images_with_a_similar_hash_have_a_key_in_common() -> None:
    search = searches()["image"]
    noise = np.random.default_rng(0)
    for i in range(20):
        pixels = np.asarray(scene(i)).astype(int)
        other = (pixels + noise.integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8)
        prints = search.prints(
            [Record("image", "", "", content=image_file(Image.fromarray(p))) for p in (pixels.astype(np.uint8), other)]
        )
        assert search.similarity(*search.details([{"near": p} for p in prints])) > 0.95
        a, b = search.keys(prints) if search.keys else ([], [])
        assert (a == b).any()


NOTHING = np.zeros(0)  # which buckets do not look at


def test_buckets_find_what_has_keys_in_common(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 400, (300, 4)).astype(np.uint64)
    buckets = Buckets(tmp_path, 4)
    buckets.add(keys[:100])
    buckets.add(keys[100:])
    buckets.sort()
    for start in range(0, 300, 7):
        several = buckets.advance(len(keys[start : start + 7]))
        for i, row in enumerate(keys[start : start + 7]):
            equal = [j for j in range(300) if ((keys[j] == row) & (row > 0)).any()]
            assert several[i] == (len(equal) > 1)
            assert buckets.candidates(i, NOTHING) == [j for j in equal if j < start + i]
            buckets.keep(i, NOTHING, start + i)


def test_of_many_candidates_those_with_most_keys_in_common_are_compared(tmp_path: Path) -> None:
    """Of 60 items, of which most have one of six keys in common with the last, the CROWD that have most."""
    keys = np.random.default_rng(0).integers(1, 4, (60, 6)).astype(np.uint64)
    buckets = Buckets(tmp_path, 6)
    buckets.add(keys)
    buckets.sort()
    buckets.advance(60)
    for row in range(59):
        buckets.keep(row, NOTHING, row)
    common = (keys[:59] == keys[59]).sum(1)
    assert (common > 0).sum() > CROWD and len(set(common)) > 3
    most = np.argsort(-common, kind="stable")[:CROWD]
    assert buckets.candidates(59, NOTHING) == sorted(most.tolist())


def test_choices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "texts", {"a.txt": prose(1)})
    with pytest.raises(UserError, match="near"):
        gather([place_of(str(folder))], tmp_path / "set", assembly={"near": "perhaps"})
