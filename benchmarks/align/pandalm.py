"""A reward model from human votes on answers to instructions: PandaLM's test set, 999 pairs, three raters each.

Accuracy on held-out votes (no answer and no instruction is shared with those learnt from), beside how often two raters
agree and the ceiling that this leaves; then every kind of features alone, to show what each is worth.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from afresh.engine.alignment.feedback.preferences import Vote, Winner
from afresh.engine.alignment.rewards.bradley_terry import HeldOut, comparisons_of, learn, shared
from afresh.engine.alignment.rewards.text_features import LENGTHS, TextSettings, fit_text, lengths
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save, with_interval

OURS = "n-grams + lengths"
SAID: dict[int, Winner] = {0: "tie", 1: "a", 2: "b"}


def read(path: Path) -> list[Vote]:
    """A vote for each of three raters of a record; answers that are no text (True, 7) are taken as they print."""
    out = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        r = json.loads(line)
        prompt = f"{r['instruction']}\n{r['input']}".strip()
        for rater in ("annotator1", "annotator2", "annotator3"):
            out.append(Vote(str(r["response1"]), str(r["response2"]), SAID[r[rater]], prompt, rater=rater))
    return out


def measured(votes: list[Vote]) -> dict[str, HeldOut]:
    """What features are worth on held-out votes, by their name; the reward model's are those of n-grams and lengths."""
    _, names = comparisons_of(votes)
    found = fit_text(names, settings=TextSettings(lengths=False))
    grams, lens = found(names), lengths(names)
    blocks = {
        "n-grams": (grams, grams.std(0)),
        "lengths": (lens, np.ones(len(LENGTHS))),
    }
    out = {}
    for some in (*((name,) for name in blocks), tuple(blocks)):
        features = np.concatenate([blocks[name][0] for name in some], 1)
        held = learn(features, votes, 0, shared([blocks[name][1] for name in some]))[1]
        out[" + ".join(some)] = held
        print(
            f"{' + '.join(some)}: {with_interval(held.accuracy)}, log loss {with_interval(held.log_loss)}", flush=True
        )
    return out


def rows(path: Path) -> list[Row]:
    found = measured(read(path))
    out = []
    for name, held in found.items():
        assert held.agreement is not None and held.ceiling is not None and held.accuracy.low is not None
        blind = f"{held.log_loss.control:.3f}"
        out.append(
            Row(
                "reward model, PandaLM",
                f"held-out accuracy, {name}; log loss, calibration error",
                f"{with_interval(held.accuracy)}; {held.log_loss.value:.3f}; {held.calibration_error.value:.3f}",
                f"{with_interval(held.agreement)} (two raters); 0.5 (guessing), whose log loss is {blind}",
                held.accuracy.value / held.agreement.value,
                "above guessing, interval and all" if name == OURS else "stated",
                name != OURS or held.accuracy.low > 0.5,
                f"{held.accuracy.n:,} votes",
            )
        )
    return out


def main() -> None:
    found = rows(data_folder("preferences_pandalm") / "pandalm_testset_v1.jsonl.gz")
    save("pandalm", found)


BENCHMARKS = (Benchmark("pandalm", ("preferences_pandalm",), 2, main),)
