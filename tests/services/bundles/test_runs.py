"""A run that was packed and got is the same model, says nothing of the folders of its maker, and is a stranger's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import afresh
from afresh.core import UserError
from afresh.data.storage.files import write_json
from afresh.runs.base_licence import licences_of
from afresh.runs.lock import FILE as LOCK
from afresh.runs.record import BaseLicence, CollectedRecord, LicenceShare
from afresh.runs.run import Run
from afresh.runs.signature import made_here
from afresh.services.bundles.open import checked
from afresh.services.bundles.pack import pack_files, pack_folder
from afresh.services.provenance.signer import signer
from afresh.verbs.packing import pack_run
from tests.faces.cli.conftest import Invoke, invoke, lines_of, parsed  # noqa: F401
from tests.services.bundles.conftest import full_disk, parts_of, signed_by
from tests.services.provenance.conftest import pem, stranger
from tests.test_old_runs import draw, unpack


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the run `text` of an earlier version, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFRESH_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("AFRESH_KERNELS", "false")  # which would be compiled for that cache
    unpack(tmp_path, "text")
    return tmp_path


def changed_record(run: str, **changed: object) -> Run:
    """The run with other values in its run.json, and without the list of hashes that they would not match."""
    record = Run.open(run).record.model_copy(update=changed)
    (Path(run) / "SHA256SUMS").unlink(missing_ok=True)
    write_json(Path(run) / "run.json", record.model_dump(mode="json"))
    return Run.open(run)


def learnt_from(*licences: str) -> CollectedRecord:
    shares = [LicenceShare(licence=name, items=2, bytes=1) for name in licences]
    return CollectedRecord(name="stories", digest="0", licences=shares, without_consent=0)


@pytest.mark.parametrize("name", ["text", "flow", "tuned", "latent"])
def test_the_same_model_comes_out(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "text":
        unpack(here, name)
    before = draw(name)
    packed = afresh.load(name).pack(f"{name}.bundle", licence="mit")
    assert packed.licence == "MIT" and packed.bundle.kind == ("adapter" if name == "tuned" else "model")
    got = afresh.get(f"{name}.bundle", name=name)
    assert got.folder == Path("runs") / name and not list(Path("runs").glob(".*"))
    monkeypatch.chdir("runs")
    assert draw(name) == before
    assert all(c.passed is not False for c in afresh.load(name).verify())


def test_the_command_line_says_what_it_did(invoke: Invoke) -> None:  # noqa: F811
    code, printed, _ = invoke("export", "text", "--to", "bundle", "-o", "t.bundle", "--licence", "cc0-1.0", "--json")
    made = parsed(printed)
    assert code == 0 and made["licence"] == "CC0-1.0" and made["files"] == 12 and made["bundle"] == "t.bundle"
    code, printed, said = invoke("get", "t.bundle", "--name", "mine")
    assert code == 0 and "runs/mine: model, 12 files, signed by you" in printed and "its licence is CC0-1.0" in said
    code, printed, _ = invoke("get", "t.bundle", "--name", "other", "--json")
    made = parsed(printed)
    assert code == 0 and made["facts"]["family"] == "transformer" and made["signer"]["whose"] == "you"
    code, _, said = invoke("export", "text", "--to", "bundle", "-o", "t.bundle")
    assert code == 2 and "--force" in said
    code, _, said = invoke("export", "text", "--to", "bundle", "-o", "u.bundle", "--licence", "mitt")
    assert code == 2 and "Did you mean MIT" in said and not Path("u.bundle").exists()


def test_nothing_of_this_machine_is_shared(here: Path) -> None:
    run = Run.open("text")
    data = run.record.data.model_copy(
        update={
            "path": "/home/ann/photos of her/cats",
            "validation": "postgres://ann:secret@db/cats?x=1",
            "options": {**run.record.data.options, "query": "SELECT secret FROM t", "base": "/home/ann/x/weights"},
            "notes": ["read /home/ann/photos of her/cats/a.txt"],
        }
    )
    run = changed_record("text", data=data, base_model="/home/ann/bases/llama")
    (Path("text") / "samples").mkdir()
    (Path("text") / "samples" / "private.txt").write_text("secret")
    (Path("text") / "report.html").write_text("<p>afresh train '/home/ann/photos of her/cats'</p>")
    encoder = json.loads(Path("text/encoder/encoder.json").read_text())
    encoder["notes"] = ["read with /home/ann/bases/llama"]
    Path("text/encoder/encoder.json").write_text(json.dumps(encoder))
    (Path("text") / "card.md").write_text(f"afresh sample {here / 'text'}")
    afresh.load(here / "text").pack("t.bundle")
    whole = Path("t.bundle").read_bytes()
    for word in (str(here).encode(), b"/home", b"ann", b"secret", b"optimizer.safetensors"):
        assert word not in whole, word
    record = Run.open(afresh.get("t.bundle", name="got").folder).record
    assert (record.data.path, record.data.validation, record.base_model) == ("cats", "cats", "llama")
    assert Path("runs/got/report.html").read_text() == "<p>afresh train 'cats'</p>"


def test_a_run_that_was_got_is_not_ones_own_and_keeps_its_licence(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_maker = afresh.load("text").pack("t.bundle", licence="CC-BY-NC-4.0").bundle
    with monkeypatch.context() as buyer:
        buyer.setenv("AFRESH_KEY_FOLDER", str(here / "buyer"))
        got = afresh.get("t.bundle", name="got", accept_signer=by_maker.signer.fingerprint)
        run = Run.open(got.folder)
        assert made_here(Run.open("text")) is False and made_here(run) is False
        for licence in ("mit", "CC-BY-NC-SA-4.0"):  # the second agrees with the maker's, and is another one
            for accept in ((), ("licence-conflict",)):
                with pytest.raises(UserError, match="only the maker may choose another licence") as error:
                    afresh.load(got).pack("again.bundle", licence=licence, accept=accept)
                assert error.value.code == "makers_licence" and not Path("again.bundle").exists()
        with pytest.raises(UserError, match="only the maker"):
            afresh.load(got).export("safetensors", out="weights", licence="mit", accept=["licence-conflict"])
        for licence in (None, "CC-BY-NC-4.0"):
            again = afresh.load(got).pack("again.bundle", licence=licence, force=True).bundle
            assert again.facts["licence"] == "CC-BY-NC-4.0" and again.signer.fingerprint != by_maker.signer.fingerprint
        twice = afresh.get("again.bundle", name="twice")  # one's own signature makes one no maker
        with pytest.raises(UserError, match="only the maker"):
            afresh.load(twice).pack("third.bundle", licence="mit")
    other = afresh.load(got).pack("other.bundle", licence="mit")  # by the maker, from whatever copy
    assert other.bundle.facts["licence"] == "MIT"
    assert licences_of("runs/got")[0].licence == "CC-BY-NC-4.0"
    afresh.load(got).remove()
    assert not got.folder.exists()


def test_a_run_that_came_without_a_licence_gets_none_from_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = afresh.load("text").pack("t.bundle").bundle.signer.fingerprint
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(here / "buyer"))
    got = afresh.get("t.bundle", name="got", accept_signer=mark)
    with pytest.raises(UserError, match="its maker states no licence for it"):
        afresh.load(got).pack("again.bundle", licence="mit")
    assert afresh.load(got).pack("again.bundle").bundle.facts["licence"] is None


# --------------------------------------------------------------------------- licences


def test_licences_that_contradict_each_other_are_refused_with_a_table(invoke: Invoke) -> None:  # noqa: F811
    data = Run.open("text").record.data
    licences = learnt_from("CC-BY-SA-4.0", "GPL-2.0-only", "MIT")
    base = BaseLicence(name="llama", licence="LicenseRef-llama3.1")
    changed_record("text", data=data.model_copy(update={"collected": licences}), base_licences=[base])
    code, _, said = invoke("export", "text", "--to", "bundle", "-o", "t.bundle")
    assert code == 2 and "no licence of a model agrees with both LicenseRef-llama3.1 and CC-BY-SA-4.0" in said
    rows = [line.split("  ") for line in said.splitlines() if line.startswith("  ")]
    assert [r[1] for r in rows] == ["LICENCE", "LicenseRef-llama3.1", "CC-BY-SA-4.0", "GPL-2.0-only", "MIT"]
    assert "attribution, share-alike" in said and "any licence" in said
    code, printed, _ = invoke("export", "text", "--to", "bundle", "-o", "t.bundle", "--json")
    *_, error = lines_of(printed)
    table = {row["licence"]: row for row in error["licences"]}
    assert error["code"] == "licence_conflict" and not Path("t.bundle").exists()
    assert table["GPL-2.0-only"]["contradicts"] == ["LicenseRef-llama3.1", "CC-BY-SA-4.0"]
    assert table["MIT"]["contradicts"] == [] and table["MIT"]["models"] is None
    assert table["CC-BY-SA-4.0"]["models"] == ["CC-BY-SA-4.0", "GPL-3.0-only"]
    code, printed, _ = invoke("export", "text", "--to", "safetensors", "--json")
    assert code == 2 and lines_of(printed)[-1]["code"] == "licence_conflict"
    code, printed, _ = invoke(
        "export", "text", "--to", "bundle", "-o", "t.bundle", "--accept", "licence-conflict", "--json"
    )
    assert code == 0 and checked(Path("t.bundle")).facts["accepted"] == ["licence-conflict"]


@pytest.mark.parametrize(
    ("licences", "contradict"),
    [
        (("CC-BY-SA-4.0", "CC-BY-SA-3.0"), False),  # both allow CC-BY-SA-4.0
        (("CC-BY-SA-4.0", "GPL-3.0-or-later"), False),  # both allow GPL-3.0-only
        (("GPL-2.0-only", "GPL-3.0-only"), True),
        (("GPL-2.0-or-later", "GPL-3.0-only"), False),
        (("CC-BY-ND-4.0", "MIT"), True),  # allows none
        (("GPL-2.0-only OR MIT", "CC-BY-SA-4.0"), False),
        (("GPL-2.0-only AND CC-BY-4.0", "CC-BY-SA-4.0"), True),
        (("CC-BY-NC-4.0", "CC-BY-SA-4.0"), True),
        (("unknown", "CC0-1.0"), False),
        (("Apache-2.0", "MIT"), False),
    ],
)
def test_which_licences_contradict_each_other(licences: tuple[str, str], contradict: bool) -> None:
    data = Run.open("text").record.data
    run = changed_record("text", data=data.model_copy(update={"collected": learnt_from(*licences)}))
    if contradict:
        with pytest.raises(UserError) as error:
            pack_run(run, Path("t.bundle"), None, ["unknown-licences"], False)
        assert error.value.code == "licence_conflict"
    else:
        pack_run(run, Path("t.bundle"), None, ["unknown-licences"], False)


# --------------------------------------------------------------------------- what is not packed


def test_a_run_that_another_process_trains_is_not_packed(here: Path) -> None:
    holding = (
        "from pathlib import Path; from afresh.runs.lock import hold; "
        "lock = hold(Path('text'), 'trained'); print('held', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", holding], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"is being trained by process .* cannot be packed now"):
            afresh.load("text").pack("t.bundle")
        process.communicate("\n")
    afresh.load("text").pack("t.bundle")
    assert not (Path("text") / LOCK).exists()


def test_a_damaged_run_or_one_without_weights_is_not_packed(here: Path) -> None:
    file = Path("text/encoder/encoder.json")
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    with pytest.raises(UserError, match=r"is damaged: encoder/encoder\.json does not match"):
        afresh.load("text").pack("t.bundle")
    file.write_bytes(content)
    for weights in Path("text/checkpoints").rglob("model.safetensors"):
        weights.write_bytes(b"x")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        afresh.load("text").pack("t.bundle")
    assert not Path("t.bundle").exists()


def test_the_adapter_of_a_person_is_not_packed(here: Path) -> None:
    unpack(here, "people")
    with pytest.raises(UserError, match="is the adapter of a person"):
        afresh.load("people/adapters/ann").pack("t.bundle")


# --------------------------------------------------------------------------- what is not installed


@pytest.fixture
def others(here: Path) -> Path:
    """The run in a bundle of somebody who is not known here."""
    afresh.load("text").pack("mine.bundle")
    by = stranger()
    Path("root.pem").write_bytes(pem(by.chain[1]))
    return signed_by(by, Path("others.bundle"), parts_of(Path("mine.bundle"))[1:], kind="model")


def test_a_bundle_of_somebody_unknown_is_refused_until_accepted(others: Path, invoke: Invoke) -> None:  # noqa: F811
    code, printed, _ = invoke("get", others, "--name", "x", "--json")
    *_, error = lines_of(printed)
    mark = checked(others).signer.fingerprint
    assert code == 2 and error["code"] == "unknown_signer" and error["fingerprint"] == mark
    assert not Path("runs").exists()
    for wrong in ("0" * 64, mark[:16], "yes"):
        assert invoke("get", others, "--name", "x", "--accept-signer", wrong)[0] == 2
    code, printed, _ = invoke("get", others, "--name", "x", "--accept-signer", mark.upper())
    assert code == 0 and "signed by stranger" in printed
    assert invoke("get", others, "--name", "y")[0] == 2, "it is accepted for once"
    assert invoke("get", others, "--name", "y", "--trust-signer", "root.pem")[0] == 0
    code, printed, _ = invoke("get", others, "--name", "z")
    assert code == 0 and "who is known here" in printed
    others.write_bytes(others.read_bytes()[:-1])
    assert invoke("get", others, "--name", "w", "--accept-signer", mark)[0] == 2, "nothing makes up for damage"


def test_a_run_is_replaced_only_if_asked_and_other_things_never(here: Path) -> None:
    afresh.load("text").pack("t.bundle")
    first = afresh.get("t.bundle", name="got").folder
    (first / "mark").write_text("x")
    with pytest.raises(UserError, match="already holds a run"):
        afresh.get("t.bundle", name="got")
    assert (first / "mark").exists()
    afresh.get("t.bundle", name="got", force=True)
    assert not (first / "mark").exists()
    Path("thesis").mkdir()
    Path("thesis/mine.tex").write_text("mine")
    for force, says in ((False, "other things in it"), (True, "so it is not replaced")):
        with pytest.raises(UserError, match=says):
            afresh.get("t.bundle", out="thesis", force=force)
    assert Path("thesis/mine.tex").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "con", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(here: Path, name: str) -> None:
    afresh.load("text").pack("t.bundle")
    with pytest.raises(UserError, match="is not a name for a run"):
        afresh.get("t.bundle", name=name)
    hostile = signed_by(signer(), Path("h.bundle"), parts_of(Path("t.bundle"))[1:], kind="model", name=name or "/")
    with pytest.raises(UserError, match="is not a name for a run"):
        afresh.get(hostile)


def test_what_is_no_whole_run_is_not_installed(here: Path) -> None:
    afresh.load("text").pack("t.bundle")
    files = dict(parts_of(Path("t.bundle"))[1:])
    weights = next(n for n in files if n.endswith("model.safetensors"))
    sums = next(n for n in files if n.endswith("/SHA256SUMS"))
    hostile = {
        "a.txt is no part of a run": {"a.txt": b"x"},
        "signature is no part of a run": {**files, "signature": b"x"},
        "adapters/ann/run.json is no part": {**files, "adapters/ann/run.json": files["run.json"]},
        "model.safetensors does not match SHA256SUMS": {**files, weights: files[weights][:-1] + b"x"},
        "it has no SHA256SUMS": {n: c for n, c in files.items() if n != "SHA256SUMS"},
        "it has no checkpoint": {n: c for n, c in files.items() if not n.startswith("checkpoints")},
        "SHA256SUMS is missing": {n: c for n, c in files.items() if n != sums},
        "is not a run record": {**files, "run.json": b"{}"},
        "it is the adapter of a person": {
            **files,
            "run.json": json.dumps({**json.loads(files["run.json"]), "personal": True}).encode(),
        },
    }
    for says, content in hostile.items():
        signed_by(signer(), Path("h.bundle"), content.items(), kind="model")
        with pytest.raises(UserError, match=re.escape(says)):
            afresh.get("h.bundle", name="h")
        assert not Path("runs/h").exists() and not list(Path("runs").glob(".*")), says


def test_works_and_data_become_a_folder_that_is_named(here: Path) -> None:
    Path("works").mkdir()
    Path("works/a.txt").write_text("a tale")
    pack_folder(Path("works"), Path("w.bundle"), "work", {"licence": "CC-BY-4.0"})
    with pytest.raises(UserError, match="give the folder to put it in"):
        afresh.get("w.bundle")
    with pytest.raises(UserError, match="exists"):
        afresh.get("w.bundle", out="works")
    got = afresh.get("w.bundle", out="new/place")
    assert (got.folder / "a.txt").read_text() == "a tale" and list(got.notes) == ["its licence is CC-BY-4.0"]
    afresh.get("w.bundle", out="new/place", force=True)
    assert {p.name for p in Path("new").iterdir()} == {"place"}
    with pytest.raises(UserError, match="is not a run"):
        afresh.load(got)


def test_a_full_disk_leaves_nothing(here: Path) -> None:
    pack_files({"a": b"1", "b": bytes(1 << 20)}, "w", Path("w.bundle"), "data", {})
    with full_disk(1 << 19), pytest.raises(UserError, match="Nothing of it is left there"):
        afresh.get("w.bundle", out="place")
    assert not Path("place").exists() and not list(here.glob(".place*"))
