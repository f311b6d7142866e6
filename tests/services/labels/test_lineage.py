"""What a run was made from: by content and never by its place, with every parent, and what is not known said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import afresh
from afresh.core import UserError
from afresh.engine.training import checkpoint
from afresh.runs.about import read_report
from afresh.runs.content_hash import content_hash, weights_hash
from afresh.runs.run import Run
from afresh.runs.signature import sign
from afresh.services.labels import lineage
from afresh.services.labels.label import Label, Link
from afresh.services.labels.run_label import canonical, label_of
from afresh.services.labels.words import rows_of
from tests.test_old_runs import unpack


def copied(run: Path, folder: Path, name: str = "copy") -> Path:
    shutil.copytree(run, folder / name)
    return folder / name


def rewritten(run: Path, **changed: object) -> Run:
    """The run with other values in its record, as this user's."""
    record = json.loads((run / "run.json").read_text()) | changed
    (run / "run.json").write_text(json.dumps(record))
    sign(Run.open(run))
    return Run.open(run)


def hows(label: Label) -> dict[str, set[str]]:
    """{how: names of what the subject was made from so}, over the whole graph."""
    names = {p.id: p.name for p in label.parts}
    out: dict[str, set[str]] = {}
    for link in label.links:
        out.setdefault(link.how, set()).add(names[link.source])
    return out


# --------------------------------------------------------------------------- content hashes


def test_a_moved_and_renamed_run_has_the_same_hash(text_run: Path, tmp_path: Path) -> None:
    moved = Run.open(copied(text_run, tmp_path / "elsewhere", "other name"))
    assert content_hash(moved) == content_hash(Run.open(text_run))
    ours, theirs = label_of(Run.open(text_run)), label_of(moved)
    assert (ours.id, ours.weights, ours.parts) == (theirs.id, theirs.weights, theirs.parts)
    assert theirs.name == "other name"
    assert str(tmp_path) not in theirs.model_dump_json() and str(text_run.parent) not in ours.model_dump_json()


def test_paths_in_the_record_have_no_part_in_the_hash(text_run: Path, tmp_path: Path) -> None:
    run = copied(text_run, tmp_path)
    before = content_hash(Run.open(run))
    data = json.loads((run / "run.json").read_text())["data"]
    assert content_hash(rewritten(run, data=data | {"path": "/another/place"}, machine={})) == before
    assert content_hash(rewritten(run, data=data | {"split_hash": "0" * 64})) != before


def test_one_weight_changes_the_hash(text_run: Path, tmp_path: Path) -> None:
    run = copied(text_run, tmp_path)
    before, weights = content_hash(Run.open(run)), weights_hash(Run.open(run))
    saved = checkpoint.newest(run / "checkpoints")
    assert saved is not None
    name, tensor = next((k, v) for k, v in saved.tensors["model"].items() if v.is_floating_point())
    tensor.view(-1)[0] += 1
    assert name in saved.tensors["model"]
    for group in ("ema",):
        if name in saved.tensors.get(group, {}):
            saved.tensors[group][name].view(-1)[0] += 1
    checkpoint.save(run / "checkpoints", saved, rotating=False)
    assert content_hash(Run.open(run)) != before and weights_hash(Run.open(run)) != weights


def test_a_file_that_was_changed_in_place_is_noticed(text_run: Path, tmp_path: Path) -> None:
    """A checkpoint that does not match its own hashes is not a content: an older one counts, or there is none."""
    run = copied(text_run, tmp_path)
    root = run / "checkpoints"
    newest = checkpoint.steps_in(root)[-1]
    before = content_hash(Run.open(run))
    tensors = load_file(root / newest / "model.safetensors")
    first = next(iter(tensors))
    tensors[first] = tensors[first] * 2
    save_file(tensors, root / newest / "model.safetensors")
    assert content_hash(Run.open(run)) != before
    for step in checkpoint.steps_in(root):
        shutil.rmtree(root / step)
    with pytest.raises(UserError, match="no checkpoint"):
        label_of(Run.open(run))


# --------------------------------------------------------------------------- parents


def test_a_bundle_brings_the_label_of_its_maker(
    adapter_run: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = afresh.load(adapter_run).pack("a.bundle", licence="CC-BY-NC-4.0").bundle
    makers = label_of(Run.open(adapter_run), licence="CC-BY-NC-4.0")
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "buyer"))
    got = afresh.get("a.bundle", accept_signer=bundle.signer.fingerprint).folder
    assert label_of(Run.open(got)) == makers and [s.name for s in makers.stages] == ["adapter", "tuned", "words"]
    small = {"train.batch": 4}
    tuned = afresh.tune(got, texts, lora=False, steps=1, out="mine", settings=small, quiet=True).run
    label = label_of(tuned)
    assert hows(label)["tuned from"] == {"adapter", "words"} and hows(label)["an adapter of"] == {"tuned"}
    assert [s.cost for s in label.stages[1:]] == [s.cost for s in makers.stages], "energy of the maker's machine"
    assert label.expression is None and "CC-BY-NC-4.0" in {f.licence for f in label.licences}
    with pytest.raises(UserError, match="MIT does not agree with the licences of its base"):
        afresh.load("mine").pack("m.bundle", licence="mit")


def test_a_label_that_came_with_a_run_is_that_of_the_run_alone(text_run: Path, tmp_path: Path) -> None:
    run = copied(text_run, tmp_path)
    own = label_of(Run.open(run))
    hostile = own.model_copy(update={"notes": ("\x1b[2J",), "facts": {"a\n": "b\u202e"}})
    (run / "label.json").write_bytes(canonical(hostile))
    shown = label_of(Run.open(run))
    assert shown.notes == ("\u241b[2J",) and not set("\n\u202e\x1b") & set(str(shown.facts))
    (run / "label.json").write_bytes(canonical(own.model_copy(update={"id": f"sha256:{'0' * 64}", "notes": ("x",)})))
    assert label_of(Run.open(run)) == own
    (run / "label.json").write_text("{}")
    with pytest.raises(UserError, match=r"label\.json"):
        label_of(Run.open(run))


def test_a_collected_data_set_is_named_by_its_items_with_licences_and_consent(picture_run: Path) -> None:
    label = label_of(Run.open(picture_run))
    (data,) = (p for p in label.parts if p.kind == "data")
    recorded = Run.open(picture_run).record.data.collected
    assert recorded is not None and data.id == f"blake3:{recorded.digest}" and data.name == "my-digits"
    kept = {s.licence: s.items for s in data.licences}
    assert kept.keys() == {"CC-BY-4.0", "CC0-1.0"} and sum(n or 0 for n in kept.values()) > 100
    assert label.expression == "CC-BY-4.0 AND CC0-1.0"
    assert [f.duties for f in label.licences] == [("attribution",), ()]
    assert label.consent.without_consent == kept["CC-BY-4.0"]


def test_an_adapter_of_a_tuned_run_names_both_and_their_costs(adapter_run: Path, tuned_run: Path) -> None:
    label = label_of(Run.open(adapter_run))
    found = hows(label)
    assert found["an adapter of"] == {"tuned"} and found["tuned from"] == {"words"}
    assert found["learnt from"] == {"texts"}
    tuned = next(p for p in label.parts if p.name == "tuned")
    assert tuned.id == label_of(Run.open(tuned_run)).weights and tuned.run == label_of(Run.open(tuned_run)).id
    assert [s.name for s in label.stages] == ["adapter", "tuned", "words"]
    assert all(s.cost.joules > 0 and s.known for s in label.stages)
    assert dict(rows_of(label))["training, all together"]


def test_an_aligned_run_names_its_base_and_its_reward(aligned_run: Path) -> None:
    label = label_of(Run.open(aligned_run))
    assert hows(label)["aligned from"] == {"words"} and hows(label)["aligned to"] == {"length:max=20"}


def test_a_student_names_its_teacher_by_what_it_samples_with(student_run: Path, picture_run: Path) -> None:
    label = label_of(Run.open(student_run))
    assert hows(label)["distilled from"] == {"digits"}
    assert {p.id for p in label.parts} >= {f"sha256:{weights_hash(Run.open(picture_run))}"}
    assert (
        label.consent.without_consent == label_of(Run.open(picture_run)).consent.without_consent
    )  # of what its teacher has seen


def test_votes_and_rewards_are_named_without_folders(tmp_path: Path) -> None:
    unpack(tmp_path, "dpo", "grpo")
    votes = label_of(Run.open(tmp_path / "dpo"))
    digest = Run.open(tmp_path / "dpo").record.align
    assert digest is not None
    assert f"sha256:{digest.preferences_sha256}" in {p.id for p in votes.parts if p.kind == "preferences"}
    assert lineage.without_folders("0.5*'/home/ann/my rewards.py:best' + length") == "0.5*'my rewards.py:best' + length"


def test_a_base_of_two_licences_names_the_adapter_and_its_model(tuned_run: Path, tmp_path: Path) -> None:
    """An adapter in PEFT's format, merged into its model, is one base under both licences."""
    bases = [
        {"name": "ann/adapter", "licence": "MIT", "said_by": "its model card"},
        {"name": "big/model", "licence": "Apache-2.0", "said_by": "its model card"},
    ]
    run = copied(tuned_run, tmp_path)
    label = label_of(rewritten(run, base_licences=bases, base_model="ann/adapter"))
    assert hows(label)["merged with"] == {"big/model"}
    assert {(f.licence, f.of) for f in label.licences} >= {("Apache-2.0", ("big/model",))}
    assert label.expression is None  # since nobody has recorded the licence of the texts


# --------------------------------------------------------------------------- what is not known


def test_a_parent_that_is_gone_is_said_with_its_digest(tuned_run: Path, tmp_path: Path) -> None:
    run = rewritten(copied(tuned_run, tmp_path), base_model=str(tmp_path / "gone"))
    label = label_of(run)
    assert run.record.base_sha256 is not None
    assert f"sha256:{run.record.base_sha256}" in {p.id for p in label.parts}
    assert any("gone is not here" in note for note in label.notes) and len(label.stages) == 1


def test_another_model_in_the_place_of_the_parent_is_not_taken_for_it(tuned_run: Path, tmp_path: Path) -> None:
    run = rewritten(copied(tuned_run, tmp_path), base_model=str(tuned_run))
    label = label_of(run)
    assert any("has other weights by now" in note for note in label.notes) and len(label.stages) == 1


def test_a_circle_is_said_and_not_walked(text_run: Path, tmp_path: Path) -> None:
    """Two runs that name each other, with the digests that they have; and one that names itself."""
    digest = weights_hash(Run.open(text_run))
    first, second = (copied(text_run, tmp_path, name) for name in ("first", "second"))
    rewritten(first, base_model=str(second), base_sha256=None, teacher_sha256=digest)
    rewritten(second, base_model=str(first), base_sha256=None, teacher_sha256=digest)
    label = label_of(Run.open(first))
    assert any("circular" in note for note in label.notes)
    assert Link(of=label.id, how="distilled from", source=f"sha256:{digest}") in label.links
    alone = copied(text_run, tmp_path, "alone")
    label = label_of(rewritten(alone, base_model=str(alone), base_sha256=None, teacher_sha256=digest))
    assert any("circular" in note for note in label.notes)


def test_depth_is_bounded(text_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MOST_DEPTH", 2)
    digest = weights_hash(Run.open(text_run))
    runs = [copied(text_run, tmp_path, f"r{i}") for i in range(5)]
    for run, parent in zip(runs[1:], runs, strict=False):
        rewritten(run, base_model=str(parent), teacher_sha256=digest)
    assert any("more than 2 models in a row" in note for note in label_of(Run.open(runs[-1])).notes)


def test_nothing_is_looked_up_for_a_run_of_somebody_else(tuned_run: Path, tmp_path: Path) -> None:
    run = copied(tuned_run, tmp_path)
    (run / "signature").write_text("0" * 64 + "\n")
    label = label_of(Run.open(run))
    assert len(label.stages) == 1 and any("is not here" in note for note in label.notes)


def test_without_loading_only_what_is_known_is_followed(
    tuned_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_CACHE_FOLDER", str(tmp_path / "empty"))
    before = label_of(Run.open(tuned_run), load=False)
    assert before.weights is None and any("stands in its own label" in note for note in before.notes)
    whole = label_of(Run.open(tuned_run))
    assert label_of(Run.open(tuned_run), load=False) == whole and len(whole.stages) == 2


def test_the_cost_of_works_is_what_the_report_measured(picture_run: Path) -> None:
    drawn = read_report(picture_run).drawn
    label = label_of(Run.open(picture_run))
    assert drawn is not None and label.drawn == drawn.works == 20
    assert label.work is not None and label.thousand_works is not None
    assert label.thousand_works.seconds == pytest.approx(1000 * drawn.usage.seconds / 20)
    assert label.work.seconds == pytest.approx(drawn.usage.seconds / 20, abs=1e-6)
