"""Processes that would train together, examined: under torchrun, and started on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.verbs.rank_check import RankFacts, RanksReport, Sum, examine_processes, rank_findings

VERSIONS = {"afresh": "1.0", "torch": "2.9"}


def facts(rank: int, versions: dict[str, str] = VERSIONS) -> RankFacts:
    return RankFacts(rank, f"node{rank}", "cpu", "a processor", 1 + rank, versions)


def test_each_process_and_each_sum_is_a_finding() -> None:
    report = RanksReport("gloo", (facts(0), facts(1)), (Sum(4, 0.0002), Sum(64_000_000, 0.128)))
    first, second, latency, large = rank_findings(report)
    assert (first.value, first.follows) == ("node0, cpu: a processor, 1 thread", "afresh 1.0, torch 2.9")
    assert second.value == "node1, cpu: a processor, 2 threads" and second.fine
    assert (latency.name, latency.value) == ("latency of a sum", "0.2 ms for 4 bytes, by gloo")
    assert (large.name, large.value) == ("sum of 64 MB", "500 MB/s, 128 ms, by gloo")
    assert "a step of 16M parameters" in large.follows


def test_a_process_with_other_versions_is_marked() -> None:
    first, second = rank_findings(RanksReport("gloo", (facts(0), facts(1, VERSIONS | {"torch": "2.8"})), ()))
    assert first.fine and not second.fine and second.follows.endswith("all need the versions of process 0")


def test_processes_under_torchrun_are_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="torchrun has started several processes already"):
        examine_processes(2)


@pytest.mark.slow
def test_processes_of_this_machine_are_started_and_add_up() -> None:
    report = examine_processes(2, "cpu")
    assert [r.rank for r in report.ranks] == [0, 1] and {r.host for r in report.ranks} == {socket.gethostname()}
    assert [s.bytes for s in report.sums] == [4, 1_000_000, 64_000_000]
    assert report.backend == "gloo" and all(s.seconds > 0 for s in report.sums)


def test_a_device_that_is_not_there_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="The device 'none' is not available"):
        examine_processes(2, "none")


@pytest.mark.slow
def test_under_torchrun_one_process_reports_all(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "afresh"]
    done = subprocess.run(
        [*command, "doctor", str(tmp_path), "--device", "cpu", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert [r["rank"] for r in told["ranks"]["ranks"]] == [0, 1]
    assert [s["bytes"] for s in told["ranks"]["sums"]] == [4, 1_000_000, 64_000_000]
    assert {"process 0", "process 1", "sum of 64 MB"} <= {f["name"] for f in told["findings"]}
