"""Where a text encoder comes from: a folder, or the Hugging Face hub at a revision, with the hashes of its files.

MiniLM (Wang et al. 2020) is pinned to one commit, and its files are checked before they are used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from afresh.core import UserError
from afresh.data.text_encoder import NEEDED, OPTIONAL, digests

MINILM = "minilm"
HUB = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True)
class HubModel:
    """A repository of the hub. `revision`: a commit, branch or tag; None: the newest. `files`: SHA-256 by name, if they
    are known in advance."""

    repository: str
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


PINNED = {
    MINILM: HubModel(
        "sentence-transformers/all-MiniLM-L6-v2",
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        },
    )
}


@dataclass(frozen=True)
class Located:
    """A text encoder on this machine. `name` finds the same one again: an absolute path, or a name with its commit."""

    name: str
    folder: Path
    files: dict[str, str]  # SHA-256 by name


def locate(name: str, expected: Mapping[str, str] | None = None) -> Located:
    """The text encoder of a name: `minilm`, a folder, or ORGANISATION/NAME[@REVISION] on the hub.

    A model of the hub is taken from its cache if that has the expected files, and downloaded otherwise. `expected`: the
    SHA-256 that its files must have, as recorded by a run; those of `minilm` are known without it. Raises UserError,
    saying how to obtain it, if it is missing, or if its files differ.
    """
    if name not in PINNED and Path(name).is_dir():
        path = Path(name).resolve()
        found = Located(str(path), path, digests(path))
    else:
        found = _on_hub(name, expected)
    if expected is not None:
        check(found, expected, "is not the one that this model was trained with")
    return found


def cached(name: str) -> bool:
    """Whether a pinned text encoder is in the cache of the hub with the right files. Nothing is downloaded."""
    return _in_cache(PINNED[name], PINNED[name].files) is not None


def check(found: Located, expected: Mapping[str, str], reproach: str) -> None:
    """Raises UserError, which says the `reproach` and names the files, unless the hashes are those expected."""
    changed = sorted(k for k in {*found.files, *expected} if found.files.get(k) != expected.get(k))
    if changed:
        raise UserError(
            f"The text encoder {found.name} in {found.folder} {reproach}: {', '.join(changed)} differ. Put the files "
            f"with these SHA-256 there: {', '.join(f'{k} {v}' for k, v in expected.items() if k in changed)}."
        )


def _on_hub(name: str, expected: Mapping[str, str] | None) -> Located:
    model = PINNED.get(name)
    if model is None:
        match = HUB.fullmatch(name)
        if match is None:
            raise UserError(
                f"No folder {name} with a text encoder. Accepted: auto, words, {MINILM}, a folder "
                f"with {', '.join(NEEDED)}, or a name on the Hugging Face hub, with or without a revision, such as "
                "sentence-transformers/all-mpnet-base-v2@REVISION."
            )
        model = HubModel(match["repository"], match["revision"])
    known = model.files or expected
    folder = _in_cache(model, known) if known else None
    if folder is None:
        folder = _downloaded(model, name)
    # A snapshot's folder is named by its commit, which is recorded so that the same files are found again.
    found = Located(name if name in PINNED else f"{model.repository}@{folder.name}", folder, digests(folder))
    if model.files:
        check(found, model.files, f"is not {model.repository} at revision {model.revision}")
    return found


def _in_cache(model: HubModel, files: Mapping[str, str]) -> Path | None:
    """The snapshot in the cache of the hub, or None if it does not have these files."""
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model.repository, revision=model.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    complete = all((folder / n).is_file() for n in NEEDED)
    return folder if complete and digests(folder) == dict(files) else None


def _downloaded(model: HubModel, name: str) -> Path:
    if find_spec("huggingface_hub") is None:
        raise UserError(
            f"The text encoder {name} comes from the Hugging Face hub, for which huggingface_hub is required: "
            "pip install 'afresh[captions]'."
        )
    from huggingface_hub import constants, snapshot_download

    try:
        wanted = [*NEEDED, *OPTIONAL]
        return Path(snapshot_download(model.repository, revision=model.revision, allow_patterns=wanted))
    except Exception as error:  # network, hub and disk errors have unrelated classes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        command = f"hf download {model.repository} --revision {model.revision or 'main'}"
        raise UserError(
            f"The text encoder {name} could not be downloaded from the hub ({reason}). Try again with a network; or "
            f"run `{command}` on a machine that has one, and copy the folder "
            f"models--{model.repository.replace('/', '--')} of its cache to {constants.HF_HUB_CACHE}. Training with "
            "`data.captions=words` needs no text encoder."
        ) from None
