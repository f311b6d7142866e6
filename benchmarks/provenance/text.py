"""The watermark of texts: how often it is found in 200 tokens drawn at temperature 1, before and after a fifth of the
words are replaced, whether p-values are true where there is none, what it does to texts, and what it costs.

Two transformers are trained for the same minutes on TinyStories, one over characters and one over byte pairs. Texts
pass through their characters before they are tested. Rivals: the green list of Kirchenbauer et al. 2023 (delta 2, gamma
1/4), and no mark. The judge of the texts of one model is the other one, over its first window.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom, kstest

from afresh.core import Batch, Cond
from afresh.core.rng import Rng
from afresh.data.text.documents import DocumentEncoder
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.sampling.next_token import NextTokenSettings, decoding, score, sequences
from afresh.engine.sampling.tokens import draw_plain
from afresh.runs.run import Run
from afresh.services.watermark.detection import ones, watermark_test
from afresh.services.watermark.watermark import VARIANTS, Watermark
from benchmarks.common import ours
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.results import Row, save
from benchmarks.provenance.green_list import GreenList, draw_green

DATA, LENGTH, MINUTES = "tinystories", 200, 3.0
MODELS = {
    "characters": (),
    "byte pairs": ("--data", "vocab_size=2048", "--set", "family.width=192", "--set", "family.layers=4"),
}
KEYS, EACH, UNMARKED = 4, 64, 100_000  # keys, texts of each, and unmarked texts
FALSE_ALARM, REPLACED = 1e-4, 0.2
LEVELS = (1e-2, 1e-3, 1e-4)
REPEATS = 15  # of the measurement of what marking costs
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Marks:
    """Of one way to mark texts: p-values as drawn and with words replaced, bits a byte of each text under the judge,
    and the distinct windows of 8 tokens as a share of all."""

    p_values: list[float]
    replaced: list[float]
    bits: list[float]
    distinct: float


def key_of(number: int) -> bytes:
    return sha256(f"watermark {number}".encode()).digest()


def tokenizer_of(run: Run) -> Tokenizer:
    assert isinstance(run.encoder, DocumentEncoder)
    return run.encoder.tokenizer


def draw(run: Run, seed: int, watermark: Watermark | None) -> list[list[int]]:
    """EACH texts of LENGTH tokens, none of which ends earlier."""
    bias = {} if run.space.end_token is None else {run.space.end_token: -100.0}
    settings = run.settings({"length": LENGTH, "logit_bias": bias, "watermark": watermark})
    return [row[:LENGTH] for row in run.draw(run.modules, Cond(EACH), seed, settings).tolist()]


def with_replaced_words(text: str, words: Sequence[str], seed: int) -> str:
    chance, own = random.Random(seed), text.split(" ")
    for place in chance.sample(range(len(own)), round(REPLACED * len(own))):
        own[place] = chance.choice(words)
    return " ".join(own)


@torch.no_grad()
def bits_a_byte(judge: Run, texts: Sequence[str]) -> list[float]:
    """Of the first window of each text."""
    out, tokenizer = [], tokenizer_of(judge)
    for text in texts:
        tokens = tokenizer.encode(text)[: judge.space.shape[0]]
        batch = Batch(torch.tensor([[judge.space.context_token, *tokens]]), Cond(1), torch.zeros(1, dtype=torch.int64))
        nats = -float(score(judge.modules, judge.config, judge.space, batch, Rng(0)))
        out.append(nats / math.log(2) / len(tokenizer.decode(tokens).encode()))
    return out


def judged(run: Run, judge: Run, words: Sequence[str], way: str) -> Marks:
    """Of KEYS times EACH texts."""
    p_values, replaced, bits, rows = list[float](), list[float](), list[float](), list[list[int]]()
    tokenizer = tokenizer_of(run)
    for number in range(KEYS):
        watermark, green = Watermark(key_of(number)), GreenList(number)
        drawn = (
            draw_green(run, EACH, LENGTH, number, green)
            if way == "green list"
            else draw(run, number, watermark if way == "tournament" else None)
        )
        texts = [tokenizer.decode(row) for row in drawn]

        def p_value(text: str, watermark: Watermark = watermark, green: GreenList = green) -> float:
            tokens = tokenizer.encode(text)
            return green.p_value(tokens) if way == "green list" else watermark_test(tokens, watermark).p_value

        p_values += [p_value(text) for text in texts]
        replaced += [p_value(with_replaced_words(text, words, i)) for i, text in enumerate(texts)]
        bits += bits_a_byte(judge, texts)
        rows += drawn
    windows = [tuple(row[i : i + 8]) for row in rows for i in range(len(row) - 7)]
    return Marks(p_values, replaced, bits, len(set(windows)) / len(windows))


def unmarked(stream: Sequence[int], count: int, key: Callable[[int], bytes]) -> tuple[Array, Array]:
    """p-values of windows of a text that nobody marked, as the test gives them and randomised: these would be exactly
    uniform, where the others are at least as large."""
    chance, given, uniform = np.random.default_rng(0), np.empty(count), np.empty(count)
    for i in range(count):
        at = int(chance.integers(len(stream) - LENGTH))
        watermark = Watermark(key(i))
        counts, n = ones(stream[at : at + LENGTH], watermark)
        trials, found = n * watermark.layers, counts.numpy()
        least = binom.sf(found.max() - 1, trials, 0.5)
        given[i] = -math.expm1(VARIANTS * math.log1p(-least))
        each = binom.sf(found, trials, 0.5) + chance.random(VARIANTS) * binom.pmf(found, trials, 0.5)
        uniform[i] = -math.expm1(VARIANTS * math.log1p(-each.min()))
        if (i + 1) % 10_000 == 0:
            print(f"{i + 1:,} unmarked texts", flush=True)
    return given, uniform


def cost(run: Run) -> float:
    """The seconds of the processor for tokens that are marked, as a ratio to those that are not: median of REPEATS."""
    watermark = Watermark(key_of(0))

    def seconds(seed: int, watermark: Watermark | None) -> float:
        settings = NextTokenSettings(length=LENGTH, watermark=watermark)
        batch, rng, index = decoding(run.modules, run.config, run.space, settings), Rng(seed), torch.arange(EACH)
        batch.end = None  # so that all texts are of the same length
        begun = time.process_time()
        draw_plain(batch, sequences(run.space, Cond(EACH), rng, index, settings), Cond(EACH), rng, index)
        return time.process_time() - begun

    seconds(0, watermark)
    ratios = []
    for seed in range(REPEATS):
        pair = [seconds(seed, w) for w in ((watermark, None) if seed % 2 else (None, watermark))]
        ratios.append(pair[0] / pair[1] if seed % 2 else pair[1] / pair[0])
    return float(np.median(ratios))


def main(*given: str) -> None:
    parser = parser_of("watermark_text", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    parser.add_argument("--unmarked", type=int, default=UNMARKED, help="texts without a mark")
    asked = parser.parse_args(given)
    torch.set_num_threads(1)
    root, data = work_folder("watermark"), data_folder(DATA)
    runs = {}
    for name, words in MODELS.items():
        path = root / name.replace(" ", "-") / f"run-{asked.minutes:g}"
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(data), "--family", "transformer", "--minutes", f"{asked.minutes:g}", *words]
        ours.train(path, arguments, threads=1)
        runs[name] = Run.open(path)
    text = gzip.decompress((data / "tinystories_train.txt.gz").read_bytes()).decode().replace("<|endoftext|>\n", "")
    words_of_text = sorted(set(text.split()))
    rows = []
    for name, judge in zip(MODELS, reversed(MODELS), strict=True):
        found = {
            way: judged(runs[name], runs[judge], words_of_text, way) for way in ("tournament", "green list", "none")
        }
        (root / f"{name.replace(' ', '-')}.json").write_text(json.dumps({k: vars(v) for k, v in found.items()}))
        rows += rows_of(name, found, cost(runs[name]))
        for row in rows[-6:]:
            print(row, flush=True)
    stream = tokenizer_of(runs["byte pairs"]).encode(text)
    for what, key in (("a key each", key_of), ("one key", lambda i: key_of(0))):
        kept = root / f"unmarked-{what.replace(' ', '-')}-{asked.unmarked}.npy"
        if not kept.exists():
            np.save(kept, np.stack(unmarked(stream, asked.unmarked, key)))
        rows += rows_of_unmarked(what, *np.load(kept))
        for row in rows[-4:]:
            print(row, flush=True)
    save("watermark_text", rows)


def share(p_values: Sequence[float] | Array, level: float = FALSE_ALARM) -> float:
    return float(np.mean(np.asarray(p_values) < level))


def with_error(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"


def rows_of(name: str, found: dict[str, Marks], ratio: float) -> list[Row]:
    mark, green, none = (found[way] for way in ("tournament", "green list", "none"))
    n = f"{KEYS * EACH} texts of {LENGTH} tokens, {KEYS} keys"
    difference = abs(float(np.mean(mark.bits) - np.mean(none.bits)))
    error = math.hypot(*(float(np.std(m.bits, ddof=1)) / math.sqrt(len(m.bits)) for m in (mark, none)))

    def row(what: str, value: str, theirs: str, goal: str, reached: bool, ratio: float | None = None) -> Row:
        return Row(f"watermark, {name}", what, value, theirs, ratio, goal, reached, n)

    def both(part: str) -> tuple[float, str]:
        of = {way: share(getattr(m, part)) for way, m in found.items()}
        return of["tournament"], f"green list {of['green list']:.1%}; unmarked {of['none']:.1%}"

    plain, plain_others = both("p_values")
    replaced, replaced_others = both("replaced")
    return [
        row("found at a false alarm in 10,000", f"{plain:.1%}", plain_others, "≥ 98%", plain >= 0.98),
        row("the same, 20% of words replaced", f"{replaced:.1%}", replaced_others, "≥ 70%", replaced >= 0.7),
        row(
            "bits a byte under a judge",
            with_error(mark.bits),
            f"unmarked {with_error(none.bits)}; green list {with_error(green.bits)}",
            "within 2 standard errors of unmarked",
            difference <= 2 * error,
        ),
        row(
            "distinct windows of 8 tokens",
            f"{mark.distinct:.3f}",
            f"unmarked {none.distinct:.3f}; green list {green.distinct:.3f}",
            "stated",
            True,
        ),
        row("processor time of a marked token", f"{ratio:.3f} x unmarked", "1", "≤ 1.03", ratio <= 1.03, ratio),
    ]


def rows_of_unmarked(what: str, given: Array, uniform: Array) -> list[Row]:
    n = f"{len(given):,} windows of {LENGTH} tokens, {what}"
    test = kstest(uniform, "uniform")

    def row(what: str, value: str, goal: str, reached: bool) -> Row:
        return Row("watermark, unmarked texts", what, value, "", None, goal, bool(reached), n)

    rows = [
        row("Kolmogorov-Smirnov, p", f"{test.pvalue:.3f} (D {test.statistic:.4f})", "≥ 0.01", test.pvalue >= 0.01),
    ]
    for level in LEVELS:
        most = level + 3 * math.sqrt(level / len(given))
        found = share(given, level)
        rows.append(row(f"share of p-values below {level:g}", f"{found:.2e}", f"≤ {most:.2e}", found <= most))
    return rows


BENCHMARKS = (Benchmark("watermark_text", ("tinystories",), 25, main),)
