"""Processes that would train together, examined: who they are, and how fast they add numbers up.

`python -m afresh.verbs.rank_check FILE [DEVICE]`, which torchrun starts, writes what it found to the file as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from afresh import __version__
from afresh.core import UserError
from afresh.data.preferences import preferences
from afresh.data.storage.files import replace_file
from afresh.engine.training import ranks
from afresh.engine.training.budget import check_device, devices, processor
from afresh.verbs.doctor import Finding
from afresh.verbs.processes import check_processes, torchrun

SUMS = ((1, 200), (250_000, 30), (16_000_000, 5))  # numbers of float32 that are added up, and how often
TIMEOUT = 300.0  # seconds until the processes of this machine must have answered


@dataclass(frozen=True)
class RankFacts:
    """One process: its device, its threads, and the versions that must be the same in all."""

    rank: int
    host: str
    device: str
    name: str
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Sum:
    """A sum of `bytes` over all processes: its median `seconds`, in the process that took longest."""

    bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Megabytes a second of what is added up, whatever the number of processes."""
        return self.bytes / 1e6 / self.seconds


@dataclass(frozen=True)
class RanksReport:
    """`backend`: the library that adds up, gloo or NCCL."""

    backend: str
    ranks: tuple[RankFacts, ...]
    sums: tuple[Sum, ...]

    def record(self) -> dict[str, object]:
        """The fields for JSON."""
        sums = [{**asdict(s), "megabytes_per_second": s.rate} for s in self.sums]
        return {"backend": self.backend, "ranks": [asdict(r) for r in self.ranks], "sums": sums}


def examine_ranks(device: str | None = None) -> RanksReport:
    """Meet the processes that torchrun started and measure how they add up. Every process must call this."""
    ranks.join()
    device = device or preferences().device or devices()[0]
    check_device(device)
    place = torch.device(device if device.startswith("cuda") else "cpu")  # no library adds up on other accelerators
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else processor()
    versions = {"afresh": __version__, "torch": str(torch.__version__), "Python": platform.python_version()}
    threads = torch.get_num_threads()
    own = RankFacts(ranks.rank(), socket.gethostname(), device, name, threads, versions)
    known = tuple(RankFacts(**facts) for facts in ranks.from_all(asdict(own)))
    sums = tuple(Sum(4 * numbers, ranks.seconds_of_sum(numbers, repeats, place)) for numbers, repeats in SUMS)
    return RanksReport("NCCL" if place.type == "cuda" else "gloo", known, sums)


def examine_processes(count: int, device: str | None = None) -> RanksReport:
    """Start so many processes on this machine, as `afresh train --processes` does, and examine them. Raises UserError
    if they cannot train together."""
    check_processes(count)
    if device is not None:
        check_device(device)
    if ranks.launched():
        raise UserError(
            "torchrun has started several processes already, which are examined if `processes` is left out.", "usage"
        )
    with tempfile.TemporaryDirectory(prefix="afresh-ranks-") as folder:
        file = Path(folder) / "found.json"
        command = [*torchrun(count), "-m", "afresh.verbs.rank_check", str(file), *([device] if device else [])]
        environment = {**os.environ}
        environment.setdefault("OMP_NUM_THREADS", str(ranks.threads_each(count)))
        agent = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, said = agent.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            agent.terminate()  # no kill: torchrun ends those that it has started
            raise UserError(
                f"The {count} processes did not answer within {TIMEOUT:.0f} seconds. Is the machine very busy?",
                ranks.NOT_MET,
            ) from None
        if agent.returncode or not file.exists():
            errors = re.findall(r"^(?:\[rank\d+\]: )?[\w.]+Error: (.+)$", said, re.MULTILINE)
            why = errors[0] if errors else f"torchrun ended with code {agent.returncode}"
            raise UserError(f"The {count} processes could not be examined: {why}", "ranks_lost")
        found = json.loads(file.read_bytes())
    return RanksReport(
        found["backend"],
        tuple(RankFacts(**r) for r in found["ranks"]),
        tuple(Sum(s["bytes"], s["seconds"]) for s in found["sums"]),
    )


def rank_findings(report: RanksReport) -> list[Finding]:
    """The processes and their sums, with what follows for training."""
    first = report.ranks[0]
    found = []
    for r in report.ranks:
        written = ", ".join(f"{name} {version}" for name, version in r.versions.items())
        same = r.versions == first.versions
        follows = written if same else f"{written}: all need the versions of process 0"
        threads = "1 thread" if r.threads == 1 else f"{r.threads} threads"
        found.append(Finding(f"process {r.rank}", f"{r.host}, {r.device}: {r.name}, {threads}", follows, same))
    return [*found, *(sum_finding(s, report) for s in report.sums)]


def sum_finding(s: Sum, report: RanksReport) -> Finding:
    """A sum over all processes, and what its duration means for a step."""
    by = f"by {report.backend}"
    if s.bytes < 1_000:
        value = f"{s.seconds * 1e3:.3g} ms for {s.bytes} bytes, {by}"
        return Finding("latency of a sum", value, "every step waits a few times as long at least")
    value = f"{s.rate:,.0f} MB/s, {s.seconds * 1e3:,.3g} ms, {by}"
    follows = f"what a step of {s.bytes / 4e6:.2g}M parameters takes longer than without other processes"
    return Finding(f"sum of {s.bytes / 1e6:.3g} MB", value, follows)


def main(words: Sequence[str]) -> None:
    report = examine_ranks(*words[1:])
    if ranks.leads():
        replace_file(Path(words[0]), json.dumps(report.record()).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
