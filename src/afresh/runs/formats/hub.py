"""Models of the Hugging Face hub by name: from the local cache, else fetched into it.

Fetched are safetensors, JSON and text, and of these what is needed: no pickles, no code, no second copy of the weights
in another precision. What a folder is, is read before its weights are fetched.
"""

from __future__ import annotations

import glob
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from afresh.core import UserError, events
from afresh.data.storage.files import free_bytes
from afresh.runs.formats.files import check_shards, read_json
from afresh.runs.formats.model_card import HUB_NAME
from afresh.runs.formats.public import CONFIG, INDEX, kind_of

ADAPTER = "adapter_config.json"
SECONDS = 3.0  # to connect
TEXTS = re.compile(r"[^/]+\.(json|jinja|txt|md)|(LICEN[CS]E|NOTICE|COPYING)[^/]*", re.IGNORECASE)
WEIGHTS = re.compile(r"(model|diffusion_pytorch_model|adapter_model)[-\w]*(\.fp16|\.bf16)?[-\w]*\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
NOT_READ = ("safety_checker", "feature_extractor", "image_encoder")  # parts of pipelines
BY_HAND = "'*.json' '*.txt' '*.jinja' '*.md' '*.safetensors'"


def hub_folder(name: str) -> Path:
    """The folder of a model on the hub, in the local cache. Raises UserError saying what to do if it is not there and
    cannot be fetched, or if it holds nothing that can be a base."""
    check_name(name)
    return cached(name) or fetched(name)


def hub_texts(name: str) -> Path:
    """The folder of a model on the hub with its texts at least: README.md, LICENSE, and what says what it is. Raises
    UserError as `hub_folder`."""
    check_name(name)
    return cached(name) or texts_of(name)[0]


def check_name(name: str) -> None:
    """Raises UserError if this cannot be a name on the hub."""
    if not HUB_NAME.fullmatch(name) or name.startswith((".", "~")):
        raise UserError(
            f"{name} is not a folder, a file, or a name on the Hugging Face hub (OWNER/NAME). Give a run, a folder "
            "with config.json and model.safetensors, a .gguf file, or a hub name."
        )


def cached(name: str) -> Path | None:
    """The folder of a model in the local cache; None if it is not there, or is not whole."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=[CONFIG, INDEX, ADAPTER]))
        check_shards(folder)
        return folder if is_whole(folder) else None
    except Exception:  # the library's errors, of which all mean that it has to be fetched
        return None


def is_whole(folder: Path) -> bool:
    """Whether each part of a folder that has a configuration has weights."""
    if (folder / INDEX).is_file():
        parts = [folder / part for part in parts_of(read_json(folder / INDEX))]
        return all(p.is_dir() and (not (p / CONFIG).is_file() or any(p.glob("*.safetensors"))) for p in parts)
    return any((folder / name).is_file() for name in (CONFIG, ADAPTER)) and any(folder.glob("*.safetensors"))


def parts_of(index: Mapping[str, Any]) -> list[str]:
    """The folders of the parts of a pipeline that are read."""
    return [k for k, v in index.items() if isinstance(v, list) and len(v) == 2 and v[1] and k not in NOT_READ]


def fetched(name: str) -> Path:
    """Fetch a model. Raises UserError as `hub_folder`."""
    from huggingface_hub import snapshot_download

    folder, sizes, texts = texts_of(name)
    check_kind(name, folder)
    weights = weights_among(name, folder, sizes)
    check_space(name, folder, sum(sizes[f] for f in weights))
    with explained(name):
        return Path(snapshot_download(name, allow_patterns=exactly([*texts, *weights])))


def autoencoder_files(name: str, fetch: bool) -> Path:
    """The folder of an autoencoder on the hub, from the local cache, or with `fetch` from the hub. Raises UserError as
    `hub_folder`."""
    check_name(name)
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{name} is on the Hugging Face hub: pip install huggingface-hub, or give a folder.")
    from huggingface_hub import constants, snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        if any(folder.rglob("*.safetensors")):
            return folder
    except Exception as e:  # the library's errors, of which all mean that it has to be fetched
        if not fetch:
            raise UserError(f"{name} was not fetched yet ({type(e).__name__}).", "not_fetched") from None
    folder, sizes, texts = texts_of(name)
    weights = [f for f in sizes if f.endswith(".safetensors") and f.rpartition("/")[0] in ("", "vae")]
    if not weights:
        raise UserError(f"{name} on the hub has no weights in safetensors. Give another autoencoder.")
    check_space(name, folder, sum(sizes[f] for f in weights), f" ({constants.ENDPOINT}/{name})")
    with explained(name):
        return Path(snapshot_download(name, allow_patterns=exactly([*texts, *weights])))


def check_reachable(name: str) -> None:
    """Raises UserError if the hub cannot be reached within SECONDS. Its library tries again for half a minute. Behind a
    proxy, nothing is checked."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    if getproxies():
        return
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), SECONDS).close()
    except OSError as error:
        raise advice(name, error) from None


def texts_of(name: str) -> tuple[Path, Mapping[str, int], Sequence[str]]:
    """Fetch the texts of a model. Returns the folder, the bytes of all files on the hub, and the names of the texts."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.hf_api import RepoFile

    with explained(name):
        listed = HfApi().list_repo_tree(name, recursive=True)
        sizes = {f.path: f.size for f in listed if isinstance(f, RepoFile)}
        texts = [f for f in sizes if TEXTS.fullmatch(f.rpartition("/")[2]) and f.count("/") < 2]
        return Path(snapshot_download(name, allow_patterns=exactly(texts))), sizes, texts


def exactly(files: Iterable[str]) -> list[str]:
    return [glob.escape(f) for f in files]


def check_kind(name: str, folder: Path) -> None:
    """Raises UserError if a folder without its weights is nothing that can be a base."""
    if (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file():
        return
    try:
        kind_of(folder)
    except UserError as e:
        raise UserError(f"{name} on the hub: {e}", e.code) from None


def weights_among(name: str, folder: Path, files: Iterable[str]) -> list[str]:
    """The files of weights to fetch. In each folder those of the precision without a name, if there are such. Raises
    UserError if there are none."""
    index = folder / INDEX
    places = parts_of(read_json(index)) if index.is_file() else [""]
    out = []
    for place in places:
        found = {f: m for f in files if (m := WEIGHTS.fullmatch(f.removeprefix(f"{place}/" if place else "")))}
        plain = [f for f, m in found.items() if m[2] is None]
        out += plain or list(found)
    if out:
        return out
    others = sorted({PurePosixPath(f).suffix for f in files} & {*PICKLES, ".gguf"})
    hint = ""
    if ".gguf" in others:
        hint = f" It has GGUF files: fetch one (hf download {name} FILE.gguf) and give its path as the base."
    elif others:
        hint = f" It has {', '.join(others)}, which are pickles and never opened: look for a copy in safetensors."
    raise UserError(f"{name} on the hub has no weights in safetensors.{hint}")


def check_space(name: str, folder: Path, size: int, where: str = "") -> None:
    """Say how much is fetched. Raises UserError if the disk has no room for it."""
    if size > (free := free_bytes(folder)):
        raise UserError(
            f"{name} has {size / 1e9:,.1f} GB of weights, and where the hub's files are kept {free / 1e9:,.1f} GB are "
            "free. Make room, or set HF_HOME to a folder on another disk."
        )
    events.note(f"{name}: {size / 1e6:,.0f} MB are fetched from the hub{where}, and kept for the next time", "fetched")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns errors of the hub's library, and of the network library below it, into UserErrors."""
    try:
        yield
    except Exception as error:
        raise advice(name, error) from None


def advice(name: str, error: Exception) -> UserError:
    """An error of the hub with what to do about it."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    response = error.response if isinstance(error, HfHubHTTPError) else None
    status = None if response is None else response.status_code
    page = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, GatedRepoError):
        known = "You are logged in, but not with an account that was let in. " if get_token() else ""
        return UserError(
            f"{name} is gated: it is given to those alone who accept its owner's terms. {known}1. Open {page}, log in "
            "and accept the terms; some owners answer later. 2. Make a token that may read at "
            f"{constants.ENDPOINT}/settings/tokens and give it to this machine: hf auth login. 3. Repeat the command.",
            "gated",
        )
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
        return UserError(
            f"No model {name} on the hub, or it is private. Is the name right ({page})? A private one needs "
            "hf auth login with an account that may read it.",
            "not_on_hub",
        )
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return UserError(
        f"{name} is not a local folder, not in the local cache, and could not be fetched from the hub ({reason}). To "
        f"fetch it by hand, run on a machine with network access: hf download {name} --include {BY_HAND} --local-dir "
        f"{name.split('/')[1]}; then copy that folder here and give its path in place of the name.",
        "hub_failed",
    )
