"""Processes of a Ray cluster compute what one process computes, also when a machine is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import afresh
from afresh.core import UserError
from afresh.core.errors import Interrupted
from afresh.core.events import Event
from afresh.data.storage.ray_cluster import check_version, full_address
from afresh.verbs.cluster_training import FOLDER, Machine, cpus_each, run_folder_shared
from tests.engine.training.test_ranks import at, bits, run_of
from tests.ray_machines import add_machine, first_machine, lose


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with first_machine() as started:
        yield started


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a machine in /proc")
@pytest.mark.timeout(3600)
def test_a_machine_is_lost_in_the_middle_and_a_run_stopped_and_nothing_is_lost(cluster: Any, tmp_path: Path) -> None:
    """Two machines until one is killed, then one until an interruption, then one."""
    steps = 400  # which take longer than to notice
    alone = run_of(tmp_path, "alone", steps=steps)
    second = add_machine(cluster)
    heard: list[Event] = []
    path = tmp_path / "lost"
    losing = at(path, (5,), lambda: lose(cluster, second))
    stopping = at(path, (20,), lambda: os.kill(os.getpid(), signal.SIGINT))
    with (
        afresh.listening(heard.append),
        losing as losses,
        stopping as stops,
        pytest.raises(Interrupted, match="saved at"),
    ):
        run_of(tmp_path, "lost", steps=steps, processes=2, on=cluster.address, quiet=False)
    assert losses == [5] and stops == [20]
    codes = [event.code for event in heard]
    assert "training" in codes and codes.count("begun_again") == 1
    assert not (path / FOLDER).exists()
    assert bits(afresh.resume(path, on=cluster.address, quiet=True)) == bits(alone)


# --------------------------------------------------------------------------- without a cluster

TWO = [Machine("a", "1", 8, 4), Machine("b", "2", 4, 0)]


@pytest.mark.parametrize(("processes", "gpu", "each"), [(1, False, 8), (2, False, 4), (3, False, 4), (12, False, 1)])
def test_the_cpus_of_a_cluster_are_divided_among_the_processes(processes: int, gpu: bool, each: int) -> None:
    assert cpus_each(TWO, processes, gpu) == each


@pytest.mark.parametrize(("processes", "gpu", "most"), [(13, False, 12), (0, False, 12), (5, True, 4)])
def test_more_processes_than_a_cluster_has_room_for_are_refused(processes: int, gpu: bool, most: int) -> None:
    with pytest.raises(
        UserError, match=f"`processes` must be from 1 to {most}, one for each {'GPU' if gpu else 'CPU'}"
    ):
        cpus_each(TWO, processes, gpu)


class OneMachine:
    """Instead of Ray: a cluster of one machine, on which every task returns `answer`."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.exceptions = SimpleNamespace(RayError=TimeoutError)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}, "NodeID": "1" * 56, "NodeManagerHostname": "far"}]

    def remote(self, **options: Any) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *given: None)

    def get(self, task: Any, timeout: float) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [(None, "far of the cluster does not see the run's folder"), (TimeoutError("late"), "far .* did not answer")],
)
def test_a_machine_that_does_not_see_the_folder_is_named(tmp_path: Path, answer: Any, words: str) -> None:
    pytest.importorskip("ray", reason="needs Ray: make complete")
    with pytest.raises(UserError, match=words), run_folder_shared(OneMachine(answer), tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_ray_that_is_not_safe_is_refused() -> None:
    check_version("2.52.0")
    with pytest.raises(UserError, match="CVE-2025-62593"):
        check_version("2.51.2")


def test_an_address_may_leave_out_the_port() -> None:
    assert full_address("ray://host") == "ray://host:10001"
    assert full_address("ray://host:1") == "ray://host:1" and full_address("host:6379") == "host:6379"


def test_a_training_without_ray_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install 'afresh\\[cluster\\]'"):
        run_of(tmp_path, "none", on="ray://host")
    assert not (tmp_path / "none").exists()
