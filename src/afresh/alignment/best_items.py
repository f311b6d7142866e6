"""The best items that a search has found, as files."""

from __future__ import annotations

import csv
import io

import torch

from afresh.alignment.reward_cache import AskedMemory
from afresh.core import Cond
from afresh.runs.run import Run
from afresh.sampling.samples import Samples, write_samples
from afresh.storage.files import replace_file

BEST = "best"  # the folder in a run
SHOWN = 100


def write_best(run: Run, memory: AskedMemory) -> str:
    """Write the best items with their rewards into the run's folder, in the files of their kind and as best.csv.
    Returns a line that says how good they are."""
    best, kind, folder = memory.best(SHOWN), run.encoder.kind, run.path / BEST
    described = [{"reward": a.reward, "asked": a.step} for a in best]
    cond = Cond.unconditional(run.conds, len(best))
    samples = Samples([a.item for a in best], torch.zeros(len(best), 1), cond, described, 0, run.encoder)
    records = write_samples(samples, folder)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["rank", kind.name, "reward", "step"])
    for rank, (answer, record) in enumerate(zip(best, records, strict=True), 1):
        rows.writerow([rank, record.get("file", record.get("text")), answer.reward, answer.step])
    replace_file(folder / "best.csv", table.getvalue().encode("utf-8", "backslashreplace"))
    s = memory.summary()
    tops = ", ".join(f"{s[f'top{k}']:.4g} of the best {k}" for k in (10, 100) if len(memory.items) >= k)
    return (
        f"asked about {int(s['asked']):,} of {memory.calls:,} {kind.plural}: best reward {s['top1']:.4g}"
        f"{f', means {tops}' if tops else ''}; area under the mean of the best 10: {s['auc_top10']:.4f}. In {folder}"
    )
