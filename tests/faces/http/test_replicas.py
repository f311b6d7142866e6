"""Replicas on a Ray cluster answer what a single server answers, also when one is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.core import UserError
from afresh.faces.cli import run
from afresh.faces.http.app import ServeSettings, make_app
from afresh.faces.http.replicas import APPLICATION, check_seen, replicated
from tests.ports import free_port
from tests.ray_machines import add_machine, children, first_machine
from tests.verbs.test_cluster_training import OneMachine

PATIENCE = 600.0  # seconds


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines with one CPU each."""
    pytest.importorskip("ray.serve", reason="needs Ray Serve: make complete", exc_type=ImportError)
    with first_machine() as started:
        add_machine(started)
        yield started


def replicas(cluster: Any) -> set[int]:
    """The numbers of the processes that serve."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    found = set()
    for number in (child for raylet in raylets for child in children(raylet)):
        with suppress(OSError):
            if f"ServeReplica:{APPLICATION}" in Path(f"/proc/{number}/cmdline").read_text():
                found.add(number)
    return found


def samples(http: httpx.Client, seed: int) -> bytes:
    """What is answered to a request; one that was lost with a replica is sent again."""
    until = time.monotonic() + PATIENCE
    while True:
        answer = http.post("/afresh/v1/samples", json={"model": "stories", "n": 2, "seed": seed})
        if answer.status_code == 200:
            return answer.content
        assert answer.status_code >= 500 and time.monotonic() < until, answer.text
        time.sleep(0.5)


def kill(cluster: Any, number: int) -> set[int]:
    """Kill a replica; returns who serves when another one has taken its place."""
    before, until = replicas(cluster), time.monotonic() + PATIENCE
    os.kill(number, signal.SIGKILL)
    while len((now := replicas(cluster)) - {number}) < len(before):
        assert time.monotonic() < until
        time.sleep(0.5)
    return now


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the replicas in /proc")
@pytest.mark.timeout(3600)
def test_two_replicas_answer_as_one_server_and_are_replaced_when_they_are_killed(
    cluster: Any, runs: Path, address: str
) -> None:
    with httpx.Client(base_url=address, timeout=PATIENCE) as one:
        expected = [samples(one, seed) for seed in range(4)]
    port = free_port()
    settings = ServeSettings([runs], memory=2**30)
    with (
        replicated(settings, cluster.address, 2, "127.0.0.1", port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http,
    ):
        assert [samples(http, seed) for seed in range(4)] == expected
        first, second = sorted(replicas(cluster))
        os.kill(first, signal.SIGKILL)
        assert [samples(http, seed) for seed in range(4)] == expected  # while the other one is alone
        kill(cluster, second)  # now none of both is left
        assert [samples(http, seed) for seed in range(4)] == expected
        assert http.get("/studio/").status_code == 404 and http.get("/health").json() == {"status": "ok"}
        assert http.get("/health", headers={"host": "elsewhere"}).status_code == 403
        with (
            pytest.raises(UserError, match="already runs on this cluster"),
            replicated(settings, cluster.address, 1, "127.0.0.1", port),
        ):
            pass
    assert replicas(cluster) == set()


# --------------------------------------------------------------------------- without a cluster


def test_what_one_process_remembers_is_not_served_by_many(runs: Path) -> None:
    paths = set(make_app(ServeSettings([runs], memory=1, page=False)).openapi()["paths"])
    assert {"/v1/completions", "/afresh/v1/samples", "/health"} <= paths
    assert not [path for path in paths if path.startswith("/studio") or "comparisons" in path]


def test_a_machine_that_does_not_see_the_runs_is_named() -> None:
    pytest.importorskip("ray", reason="needs Ray: make complete")
    with pytest.raises(UserError, match="far of the cluster does not see /data/runs"):
        check_seen(OneMachine(["/data/runs"]), ["/data/runs"])
    check_seen(OneMachine([]), ["/data/runs"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "replicas=2"], "Say which: --on ray://HOST"),
        (["--on", "local", "--set", "rate=5", "--open"], "Leave out --open, --set rate, or serve without --on"),
        (["--on", "local", "--port", "0"], "Leave out --port 0"),
    ],
)
def test_what_replicas_cannot_do_is_refused(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--on" in options:
        pytest.importorskip("ray", reason="needs Ray: make complete")
    assert run(["serve", ".", *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
