"""Quality for the minute: `afresh train --minutes M`, with the planner's own choices, beside Hugging Face Trainer.

Two texts: tiny-Shakespeare in characters, with the last tenth held out, and TinyStories with eight books in byte pairs
(4,096 for the peer), with the last tenth of the stories and of each book held out. Both sides run at the same time, a
processor each. Ours pays for everything from its budget: reading, measuring the machine, planning, training.
"""

from __future__ import annotations

import gzip
import json
import math
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afresh.runs.data import run_data
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.ours import nats
from benchmarks.common.processes import ask, finish, start
from benchmarks.common.results import Row, save
from benchmarks.text.peers import hf_trainer

SEEDS = (0,)
CHARACTERS = ((1, 0.05), (5, 0.05), (20, 0.03))  # minutes, and by how many nats to be ahead
PAIRS = (5, 10)
END = "<|endoftext|>"


@dataclass(frozen=True)
class Corpus:
    """Texts to learn and held-out ones, by name; what a unit of the result is."""

    name: str
    train: list[str]
    heldout: dict[str, list[str]]
    characters: bool


def shakespeare(data: Path) -> Corpus:
    text = (data / "tinyshakespeare" / "input.txt").read_text()
    cut = int(0.9 * len(text))
    return Corpus("tiny-Shakespeare", [text[:cut]], {"validation": [text[cut:]]}, True)


def stories(data: Path) -> Corpus:
    packed = gzip.decompress((data / "tinystories" / "tinystories_train.txt.gz").read_bytes()).decode()
    tales = [t.strip() for t in packed.split(END) if t.strip()]
    cut = int(0.9 * len(tales))
    train, books = tales[:cut], []
    with zipfile.ZipFile(data / "gutenberg_books" / "books.zip") as z:
        for name in sorted(n for n in z.namelist() if n.endswith(".txt")):
            text = z.read(name).decode()
            part = int(0.9 * len(text))
            train.append(text[:part])
            books.append(text[part:])
    return Corpus("stories and books", train, {"stories": tales[cut:], "books": books}, False)


def tokenised(corpus: Corpus, folder: Path) -> tuple[Path, dict[str, Path], int]:
    """The peer's ids in files: of the training texts, of each held-out part, and the size of its vocabulary."""
    if corpus.characters:
        letters = sorted(set("".join(corpus.train)))
        number = {c: i for i, c in enumerate(letters)}

        def encode(texts: list[str]) -> list[int]:
            return [number[c] for t in texts for c in t]

        vocab = len(letters)
    else:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=4096, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        made.train_from_iterator(corpus.train, trainer)

        def encode(texts: list[str]) -> list[int]:
            return [i for t in texts for i in (0, *made.encode(t).ids)]

        vocab = made.get_vocab_size()

    def keep(name: str, texts: list[str]) -> Path:
        np.save(folder / f"{name}.npy", np.array(encode(texts), dtype=np.int32))
        return folder / f"{name}.npy"

    return keep("train", corpus.train), {k: keep(k, v) for k, v in corpus.heldout.items()}, vocab


def written(texts: list[str], folder: Path) -> Path:
    """The texts as files that afresh reads: one long text as .txt, many as a line each of .jsonl."""
    folder.mkdir(parents=True)
    if len(texts) == 1:
        (folder / "text.txt").write_text(texts[0])
    else:
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return folder


def size(texts: list[str]) -> int:
    return sum(len(t.encode()) for t in texts)


@dataclass(frozen=True)
class Found:
    """Bits per byte of ours and of each peer by held-out part, and what was trained."""

    ours: dict[str, float]
    theirs: dict[str, dict[str, float]]
    trained: str
    peers: dict[str, str]

    def best(self, part: str) -> tuple[str, float]:
        """The peer that is best on a part."""
        return min(((n, bits[part]) for n, bits in self.theirs.items()), key=lambda x: x[1])


def compare(corpus: Corpus, minutes: float, sizes: dict[str, tuple[int, int, int]], seed: int) -> Found:
    """Both sides after the same minutes; peers of `sizes` (width, layers, heads) one after the other."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        ids, held, vocab = tokenised(corpus, folder)
        path = written(corpus.train, folder / "train")
        whole = written([t for texts in corpus.heldout.values() for t in texts], folder / "heldout")
        argv = ["afresh", "train", str(path), "--modality", "text", "--validation", str(whole), "--no-measure"]
        argv += ["--minutes", str(minutes), "--seed", str(seed), "--out", str(folder / "run"), "--json"]
        own = start(argv, folder / "log", core=0)
        theirs, peers = {}, {}
        for name, sizes_of in sizes.items():
            where = folder / name
            heldout = {k: str(p) for k, p in held.items()}
            request = hf_trainer.Ask(str(ids), heldout, vocab, *sizes_of, seconds=60 * minutes, seed=seed)
            answer = hf_trainer.Answer(**ask("benchmarks.text.peers.hf_trainer", request, where, core=1))
            theirs[name] = {k: answer.nats[k] / math.log(2) / size(v) for k, v in corpus.heldout.items()}
            peers[name] = f"{answer.parameters / 1e6:.2f}M, {answer.steps:,} steps of {hf_trainer.BATCH}"
        finish(own, folder / "log")
        run = Run.open(folder / "run")
        ours = {k: bits(run, written(v, folder / "parts" / k)) for k, v in corpus.heldout.items()}
        train = run.record.train
        trained = f"{run.record.parameters / 1e6:.2f}M, {train.steps:,} steps of {train.batch}"
        return Found(ours, theirs, trained, peers)


def bits(run: Run, path: Path) -> float:
    """Bits per byte over all texts at the path."""
    prepared = run_data(run, path)
    return nats(run, prepared) / math.log(2) / prepared.heldout.bytes


def characters(data: Path, budgets: Sequence[tuple[int, float]] = CHARACTERS) -> list[Row]:
    """tiny-Shakespeare after each budget."""
    rows = []
    corpus = shakespeare(data)
    count = size(corpus.heldout["validation"])
    for minutes, goal in budgets:
        for seed in SEEDS:
            found = compare(corpus, minutes, {"1.8M": (192, 4, 4)}, seed)
            peer, theirs = found.best("validation")
            ours = found.ours["validation"] * math.log(2)
            theirs *= math.log(2)
            what = f"nats a character, {minutes} min of one core, seed {seed}; {found.trained}"
            beside = f"{theirs:.3f} (Hugging Face Trainer, {found.peers[peer]})"
            reached = ours <= theirs - goal
            print(what, f"{ours:.4f}", beside, flush=True)
            wish = f"at least {goal} nats lower"
            rows.append(Row(corpus.name, what, f"{ours:.3f}", beside, ours / theirs, wish, reached, f"{count:,}"))
    return rows


def pairs(data: Path, budgets: Sequence[int] = PAIRS) -> list[Row]:
    """Stories and books after each budget."""
    rows = []
    corpus = stories(data)
    for minutes in budgets:
        found = compare(corpus, minutes, {"2.6M": (192, 4, 4), "12M": (384, 6, 6)}, SEEDS[0])
        for part, texts in corpus.heldout.items():
            peer, theirs = found.best(part)
            ours = found.ours[part]
            what = f"bits a byte of {part}, {minutes} min of one core, seed {SEEDS[0]}; {found.trained}"
            beside = f"{theirs:.3f} (Hugging Face Trainer, the better of two, {found.peers[peer]})"
            print(what, f"{ours:.4f}", beside, flush=True)
            count = f"{size(texts):,} bytes"
            reached = ours <= 0.92 * theirs
            rows.append(Row(corpus.name, what, f"{ours:.3f}", beside, ours / theirs, "at most 0.92", reached, count))
    return rows


def main() -> None:
    save("minutes", characters(data_folder()))


def stories_and_books() -> None:
    save("stories", pairs(data_folder()))


BENCHMARKS = (
    Benchmark("minutes", ("tinyshakespeare",), 55, main),
    Benchmark("stories", ("tinystories", "gutenberg_books"), 50, stories_and_books),
)
