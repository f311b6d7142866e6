"""Works of every format say where they come from, stay what they are, and every change to them is found."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from afresh.core import UserError
from afresh.services.provenance.containers import manifest_in
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read, read_all
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.signer import Signer, signer
from afresh.services.provenance.work import Ingredient
from tests.services.provenance.conftest import FORMATS, content_of, decoded, facts, write_work

OTHERS = ("tale.txt", "rows.jsonl", "tune.mid", "voice.ogg", "molecules.smi", "rows.csv", "field.gif", "field.npy")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_signed_work_is_valid_says_its_facts_and_has_the_same_pixels_or_samples(suffix: str) -> None:
    content, of = content_of(suffix), facts(mark={"method": "dct", "bits": 32})
    signed = signed_work(content, f"a{suffix}", of)
    assert signed.sidecar is None
    assert np.array_equal(decoded(signed.content, suffix), decoded(content, suffix))
    finding = read(signed.content)
    (layer,) = finding.layers
    assert (finding.status, layer.name) == (Status.VALID, "manifest")
    assert layer.signer is not None and layer.signer.whose == "you"
    (origin,) = layer.origins
    assert origin.work == of and origin.generated and origin.generator.startswith("afresh ")


@pytest.mark.parametrize("name", OTHERS)
def test_what_can_carry_no_manifest_stays_as_it_is_and_gets_a_sidecar(name: str, tmp_path: Path) -> None:
    content = name.encode() * 50
    written = write_work(tmp_path / name, content, facts())
    assert [p.name for p in written] == [name, f"{name}.provenance.json"] and written[0].read_bytes() == content
    for path in written:  # the path of a sidecar is that of its file
        finding = read(path)
        assert finding.status is Status.VALID and finding.layers[0].name == "sidecar"
        assert finding.layers[0].origins[0].work == facts()
    assert [f.name for f in read_all(tmp_path)] == [str(written[0])]


def test_unmarked_files_and_empty_ones_say_nothing() -> None:
    for content in (b"", b"\x89PNG", b"RIFF", b"ID3", b"\xff\xd8\xff", b"words", *map(content_of, FORMATS)):
        assert read(content).status is Status.NOTHING, content[:12]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_flipped_byte_is_found_wherever_it_is(suffix: str) -> None:
    signed = signed_work(content_of(suffix), suffix, facts()).content
    found = manifest_in(io.BytesIO(signed))
    assert found is not None
    rng = np.random.default_rng(1)
    places = {int(p) for p in rng.integers(0, len(signed), 40)}
    start = signed.find(b"jumb") - 4  # around the boxes, which no signature is over, every byte
    places |= {*range(start, start + 56), *range(min(12, start))}
    places |= {int(p) for p in rng.integers(start, start + len(found[1]), 40)}
    skipped = {start - 6, start - 5} if suffix == ".jpg" else set()  # the number of a box, which may be any
    unnoticed = []
    for place in sorted(places - skipped):
        changed = bytearray(signed)
        changed[place] ^= int(rng.integers(1, 256))
        if read(bytes(changed)).status is Status.VALID:
            unnoticed.append(place - start)
    assert not unnoticed


def test_a_changed_picture_is_said_to_be_changed() -> None:
    signed = signed_work(content_of(".wav"), ".wav", facts()).content
    changed = bytearray(signed)
    changed[200] ^= 1
    assert read(bytes(changed)).status is Status.CHANGED


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_work_is_never_valid(suffix: str) -> None:
    signed = signed_work(content_of(suffix), suffix, facts()).content
    for end in np.random.default_rng(2).integers(1, len(signed) - 1, 25):
        assert read(signed[:end]).status is not Status.VALID, end


def test_a_manifest_copied_from_another_picture_is_found() -> None:
    signed, other = signed_work(content_of(".png"), ".png", facts()).content, content_of(".png", seed=5)
    start = signed.find(b"caBX") - 4
    chunk = signed[start : start + 12 + int.from_bytes(signed[start : start + 4], "big")]
    assert read(other[:33] + chunk + other[33:]).status is Status.CHANGED


@pytest.mark.parametrize("suffix", FORMATS)
def test_edits_of_edits_keep_what_is_known_about_each(suffix: str) -> None:
    content = [content_of(suffix, seed) for seed in range(3)]
    current = signed_work(content[0], f"a{suffix}", facts(model="first")).content
    for number, name in ((1, "second"), (2, "third")):
        parent = Ingredient.of(f"{number}{suffix}", current)
        current = signed_work(content[number], f"a{suffix}", facts(model=name, ingredients=(parent,))).content
    finding = read(current)
    assert finding.status is Status.VALID
    origins = finding.layers[0].origins
    assert [o.work.model for o in origins if o.work] == ["third", "second", "first"]
    assert [o.title for o in origins] == [None, f"2{suffix}", f"1{suffix}"]
    assert not any(o.faults for o in origins)


def test_a_work_that_was_changed_before_it_was_edited_is_said_to_have_been() -> None:
    first = bytearray(signed_work(content_of(".wav"), ".wav", facts()).content)
    first[200] ^= 1
    edited = signed_work(content_of(".wav", 1), ".wav", facts(ingredients=(Ingredient.of("a.wav", bytes(first)),)))
    finding = read(edited.content)
    assert finding.status is Status.VALID, "the edit itself is what was signed"
    assert finding.layers[0].origins[1].faults == ("assertion.dataHash.mismatch",)


def test_ingredients_of_other_formats_are_kept_by_their_hash_and_their_sidecars_are_checked() -> None:
    tale = signed_work(b"a tale", "tale.txt", facts(model="words"))
    picture = signed_work(content_of(".png"), "a.png", facts(model="shapes")).content
    of = (Ingredient.of("tale.txt", b"a tale", tale.sidecar), Ingredient.of("a.png", picture, relationship="inputTo"))
    for name, content in (("b.png", content_of(".png", 1)), ("b.txt", b"another tale")):
        signed = signed_work(content, name, facts(ingredients=of))
        finding = read(signed.content, signed.sidecar)
        assert finding.status is Status.VALID
        made = finding.layers[0].origins[0].work
        assert made is not None and [i.sha256 for i in made.ingredients] == [i.sha256 for i in of]
        assert {o.title for o in finding.layers[0].origins[1:]} >= {"tale.txt", "a.png"}
        assert "words" in [o.work.model for o in finding.layers[0].origins if o.work]
    wrong = (Ingredient.of("tale.txt", b"a forged tale", tale.sidecar),)
    forged = read(signed_work(content_of(".png"), "a.png", facts(ingredients=wrong)).content)
    assert forged.layers[0].origins[1].faults == ("its sidecar is that of another file",)
    signed = signed_work(b"x", "x.txt", facts(ingredients=wrong))
    assert read(b"x", signed.sidecar).layers[0].origins[1].work is None


def test_a_text_that_was_edited_many_times_grows_by_one_statement_an_edit() -> None:
    content, sidecar, sizes = b"0", signed_work(b"0", "t.txt", facts(model="0")).sidecar, []
    for edit in range(1, 30):
        parent = Ingredient.of("t.txt", content, sidecar)
        content = str(edit).encode()
        sidecar = signed_work(content, "t.txt", facts(model=str(edit), ingredients=(parent,))).sidecar
        assert sidecar is not None
        sizes.append(len(sidecar))
    assert sizes[-1] - sizes[-2] < 1.2 * (sizes[1] - sizes[0]) < 6000
    (layer,) = read(content, sidecar).layers
    assert layer.status is Status.VALID
    assert [o.work.model for o in layer.origins if o.work] == [str(e) for e in range(29, -1, -1)]
    cut = json.loads(sidecar or b"")
    del cut["header"]["statements"][3]
    assert read(content, json.dumps(cut).encode()).status is Status.DAMAGED


def test_a_flipped_byte_in_the_manifest_of_a_parent_is_found() -> None:
    first = signed_work(content_of(".wav"), ".wav", facts()).content
    edited = signed_work(content_of(".wav", 1), ".wav", facts(ingredients=(Ingredient.of("a.wav", first),))).content
    rng, start = np.random.default_rng(6), edited.find(b"jumb") - 4
    for place in rng.integers(start, len(edited), 150):
        changed = bytearray(edited)
        changed[place] ^= int(rng.integers(1, 256))
        assert read(bytes(changed)).status is not Status.VALID, place - start


def test_a_sidecar_is_known_by_the_content_of_its_file(tmp_path: Path) -> None:
    path, beside = write_work(tmp_path / "a.txt", b"words", facts())
    moved = tmp_path / "b.txt"
    moved.write_bytes(b"words")
    (tmp_path / "b.txt.provenance.json").write_bytes(beside.read_bytes())
    assert read(moved).status is Status.VALID and "its name was a.txt" in read(moved).layers[0].detail
    moved.write_bytes(b"Words")
    assert read(moved).status is Status.CHANGED
    path.unlink()
    (finding,) = [f for f in read_all(tmp_path) if f.name == str(path)]
    assert finding.status is Status.DAMAGED and "is not beside it" in finding.layers[0].detail


def test_every_flipped_byte_of_a_sidecar_is_found_or_says_the_same() -> None:
    content = b"words"
    sidecar = signed_work(content, "a.txt", facts()).sidecar
    assert sidecar is not None
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(sidecar), 200):
        changed = bytearray(sidecar)
        changed[place] ^= int(rng.integers(1, 256))
        try:
            same = json.loads(changed) == json.loads(sidecar)  # a space of another kind between two fields
        except ValueError:
            same = False
        assert same or read(content, bytes(changed)).status is Status.DAMAGED, place


@pytest.mark.parametrize("name", ["../a.txt", "/etc/passwd", "a/b.txt", "a\\b.txt", "", "a\n.txt"])
def test_a_sidecar_that_names_a_path_is_damaged(name: str) -> None:
    from afresh.services.provenance.sidecar import sidecar

    made = sidecar(b"words", name, facts(), signer())
    assert read(b"words", made).status is Status.DAMAGED


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"[" * 100_000, b"\xff" * 100, b'{"payload":1,"protected":2,"signature":3}', b"0" * 2_000_000],
)
def test_a_sidecar_of_nonsense_is_damaged(data: bytes) -> None:
    assert read(b"words", data).status is Status.DAMAGED


def test_facts_that_cannot_be_signed_are_refused() -> None:
    with pytest.raises(UserError, match=r"recipe.guidance.*finite number"):
        facts(recipe={"guidance": float("nan")})
    with pytest.raises(UserError, match="at most 262,144"):
        facts(recipe={"prompt": "x" * 300_000})
    with pytest.raises(UserError, match="made"):
        facts(made="yesterday")
    with pytest.raises(UserError, match="inputTo"):
        facts(ingredients=(Ingredient.of("a", b"1"), Ingredient.of("b", b"2")))
    with pytest.raises(UserError, match=r"sidecar of b\.txt is damaged"):
        signed_work(b"x", "a.txt", facts(ingredients=(Ingredient.of("b.txt", b"y", b'{"payload": ""}'),)))
    with pytest.raises(UserError, match="not of the format"):
        signed_work(b"no picture", "a.png", facts())


def test_the_sidecar_is_a_signature_that_the_standard_describes() -> None:
    """RFC 7515, by another library for it."""
    jws = pytest.importorskip("joserfc.jws")
    from joserfc.jwk import ECKey

    made: Signer = signer()
    sidecar = signed_work(b"words", "a.txt", facts()).sidecar
    assert sidecar is not None
    from cryptography.hazmat.primitives import serialization

    public = made.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    registry = jws.JWSRegistry()
    registry.max_header_length = 1 << 16  # two certificates are in the header
    obj = jws.deserialize_json(json.loads(sidecar), ECKey.import_key(public), registry=registry)
    assert json.loads(obj.payload)["sha256"] == hashlib.sha256(b"words").hexdigest()
