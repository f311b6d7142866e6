"""Text encoders by name: folders, and the hub at a commit, with the hashes that are known or were recorded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from afresh.core import UserError
from afresh.data import text_encoder_source
from afresh.data.text_encoder import digests
from afresh.data.text_encoder_source import MINILM, PINNED, locate
from tests.data.tiny_encoder import in_hub, tiny

REPOSITORY, COMMIT = PINNED[MINILM].repository, PINNED[MINILM].revision or ""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_pinned_is_a_commit_with_the_hash_of_every_file() -> None:
    for model in PINNED.values():
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision or "")
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(model.files)
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in model.files.values())


def test_a_folder_is_recorded_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    found = locate("model")
    assert (found.name, found.files) == (str(tmp_path / "model"), digests(tmp_path / "model"))


def test_minilm_is_taken_from_the_cache_if_it_has_the_pinned_files(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = in_hub(cache, REPOSITORY, COMMIT)
    monkeypatch.setitem(PINNED, MINILM, replace(PINNED[MINILM], files=digests(snapshot)))
    found = locate(MINILM)
    assert (found.name, found.folder) == (MINILM, snapshot)
    assert locate(MINILM, found.files) == found


def test_minilm_with_other_files_than_the_pinned_ones_is_refused(cache: Path) -> None:
    in_hub(cache, REPOSITORY, COMMIT)
    with pytest.raises(UserError, match=rf"is not {REPOSITORY} at revision {COMMIT}: .*model\.safetensors.* differ"):
        locate(MINILM)


def test_a_run_that_used_other_files_than_the_pinned_ones_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = in_hub(cache, REPOSITORY, COMMIT)
    monkeypatch.setitem(PINNED, MINILM, replace(PINNED[MINILM], files=digests(snapshot)))
    with pytest.raises(UserError, match=r"not the one that this model was trained with: model\.safetensors differ"):
        locate(MINILM, {**digests(snapshot), "model.safetensors": "0" * 64})


def test_minilm_out_of_reach_says_how_to_get_it(cache: Path) -> None:
    how = rf"`hf download {REPOSITORY} --revision {COMMIT}`.*models--sentence-transformers--all-MiniLM-L6-v2.*{cache}"
    with pytest.raises(UserError, match=rf"minilm could not be downloaded.*{how}.*captions=words"):
        locate(MINILM)


@pytest.mark.parametrize("revision,commit", [("", "b"), ("@main", "b"), ("@" + "a" * 40, "a")])
def test_a_name_of_the_hub_is_recorded_with_its_commit(revision: str, commit: str, cache: Path) -> None:
    first, second = in_hub(cache, "someone/tiny", "a" * 40), in_hub(cache, "someone/tiny", "b" * 40, seed=1)
    found = locate(f"someone/tiny{revision}")
    assert (found.name, found.folder) == (f"someone/tiny@{commit * 40}", first if commit == "a" else second)
    assert locate(found.name, found.files) == found


def test_a_damaged_file_of_the_hub_is_named(cache: Path) -> None:
    snapshot = in_hub(cache, "someone/tiny", "a" * 40)
    found = locate("someone/tiny")
    weights = (snapshot / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"trained with: model\.safetensors differ.*these SHA-256"):
        locate(found.name, found.files)


def test_without_the_library_of_the_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder_source, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"huggingface_hub is required: pip install 'afresh\[captions\]'"):
        locate(MINILM)


def test_names_that_can_be_neither_are_refused() -> None:
    with pytest.raises(UserError, match=r"No folder no/such/folder.*Accepted: auto, words, minilm, a folder"):
        locate("no/such/folder")
