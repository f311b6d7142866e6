"""Processes that train one run together compute what a single process computes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

import afresh
from afresh.core import UserError
from afresh.core.errors import Interrupted
from afresh.core.events import Event, listening
from afresh.engine.training import ranks
from afresh.faces.cli import follows
from afresh.verbs.processes import ATTEMPTS, Order, attempt
from afresh.verbs.torchrun import check_same
from tests.engine.training.rank_processes import at, under_torchrun
from tests.engine.training.rank_program import every, weights
from tests.ports import free_port


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have after a few steps of every family."""
    folder = tmp_path_factory.mktemp("ranks")
    done = under_torchrun(["tests.engine.training.rank_program", str(folder)])
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize(("title", "space", "batch"), every())
def test_two_processes_have_the_bits_of_one_with_two_micro_batches(
    together: Path, title: str, space: str, batch: int
) -> None:
    alone = weights(title, space, batch)
    for rank in (0, 1):
        theirs = load_file(together / f"{title}-{space}-{batch}-{rank}.safetensors")
        assert alone.keys() == theirs.keys()
        assert not [name for name, v in alone.items() if not torch.equal(v, theirs[name])]


@pytest.mark.parametrize("count", range(1, 40))
def test_a_batch_is_divided_into_parts_of_almost_one_size_and_two_are_micro_batches(count: int) -> None:
    for parts in range(1, count + 1):
        ends = ranks.ends(count, parts)
        sizes = [b - a for a, b in pairwise(ends)]
        assert sum(sizes) == count and ends[0] == 0 and min(sizes) >= max(sizes) - 1 >= 0
    assert count == 1 or ranks.ends(count, 2) == [*range(0, count, (count + 1) // 2), count]


# --------------------------------------------------------------------------- a run


SETTINGS = {"train.threads": 1, "train.precision": "float32", "train.save_every": 5, "train.eval_every": 10}
SETTINGS |= {"family.width": 32, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2}


def run_of(folder: Path, name: str, batch: int = 8, steps: int = 40, **options: Any) -> afresh.Model:
    text = folder / "lines.txt"
    if not text.exists():
        text.write_text("\n".join(f"line {i}: {i * i % 97} and {i % 7}" for i in range(2_000)))
    settings = {**SETTINGS, "train.batch": batch, "train.micro_batch": (batch + 1) // 2}
    return afresh.train(text, steps=steps, out=folder / name, settings=settings, **{"quiet": True, **options})


def bits(model: afresh.Model) -> dict[str, bytes]:
    newest = model.path / "checkpoints" / (model.path / "latest").read_text().strip()
    return {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> afresh.Model:
    return run_of(tmp_path_factory.mktemp("alone"), "alone")


def test_a_run_of_two_processes_is_that_of_one(alone: afresh.Model, tmp_path: Path) -> None:
    events = list[Event]()
    with listening(events.append):
        both = run_of(tmp_path, "both", processes=2, quiet=False)
    assert bits(both) == bits(alone)
    rows = [json.loads(line) for line in (both.path / "metrics.jsonl").read_text().splitlines()]
    (pace, other) = [e for e in events if e.code == "training"][-1].fields["ranks"]
    assert (pace["rank"], other["rank"]) == (0, 1) and pace["host"] == other["host"] == socket.gethostname()
    assert pace["seconds"] > 0 and pace["rate"] > 0
    losses = [row["heldout_loss"] for row in rows if "heldout_loss" in row]
    known = [json.loads(line) for line in (alone.path / "metrics.jsonl").read_text().splitlines()]
    assert losses == [row["heldout_loss"] for row in known if "heldout_loss" in row]


def test_a_process_that_is_killed_is_started_again_and_nothing_is_lost(
    alone: afresh.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chosen = random.Random(0)

    def kill() -> None:
        numbers = [int(file.read_text()) for file in tmp_path.glob("afresh-ranks-*/*.pid")]
        os.kill(chosen.choice(numbers), signal.SIGKILL)

    with at(tmp_path / "killed", (5, 20), kill) as kills:
        killed = run_of(tmp_path, "killed", processes=2)
    assert kills == [5, 20] and bits(killed) == bits(alone)


def test_a_run_goes_on_with_another_number_of_processes(alone: afresh.Model, tmp_path: Path) -> None:
    """Two processes until an interruption, then one until the next, then two."""
    path = tmp_path / "changing"
    with at(path, (10,), lambda: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(Interrupted):
        run_of(tmp_path, "changing", processes=2)
    with at(path, (20,), lambda: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(Interrupted):
        afresh.resume(path, quiet=True)
    assert bits(afresh.resume(path, processes=2, quiet=True)) == bits(alone)


def test_a_batch_that_does_not_divide_is_that_of_one_process(tmp_path: Path) -> None:
    one, two = (run_of(tmp_path, str(n), batch=5, steps=6, processes=n) for n in (1, 2))
    assert bits(one) == bits(two)


def test_more_processes_than_examples_in_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="A batch has 1 example"):
        run_of(tmp_path, "small", processes=2, batch=1)


@pytest.mark.parametrize("processes", [0, 4_096])
def test_processes_that_this_machine_cannot_run_are_refused(tmp_path: Path, processes: int) -> None:
    with pytest.raises(UserError, match="`processes` must be from 1"):
        run_of(tmp_path, "none", processes=processes)


def test_processes_that_die_before_they_save_end_with_an_error(tmp_path: Path) -> None:
    order = Order(str(tmp_path / "run"), str(tmp_path), None, False)
    for _ in range(ATTEMPTS):
        attempt(order)
    with pytest.raises(UserError, match="3 times in a row before they had saved more"):
        attempt(order)


def leader(run: Path) -> int:
    """The number of the process of rank 0 that trains a run."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"RANK=0" in (folder / "environ").read_bytes().split(b"\0") and str(run).encode() in words:
                return int(folder.name)
    raise ProcessLookupError


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a process in /proc")
def test_a_command_under_torchrun_is_that_of_one_process(alone: afresh.Model, tmp_path: Path) -> None:
    """Every process gets the same words, one of them plans, and after a restart the run that it made goes on."""
    run, settings = tmp_path / "run", {**SETTINGS, "train.batch": 8, "train.micro_batch": 4}
    words = ["train", str(alone.path.parent / "lines.txt"), "--steps", "40", "--out", str(run), "--no-measure"]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    with at(run, (10,), lambda: os.kill(leader(run), signal.SIGKILL)) as kills:
        done = under_torchrun(["afresh", *words], "--max-restarts=2")
    assert done.returncode == 0, done.stderr[-4000:]
    assert kills == [10] and bits(afresh.load(run)) == bits(alone)
    assert done.stderr.count("result: ") == 1, "one process reports"


# --------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize(
    ("gpus", "processes", "backend"),
    [(0, 2, "cpu:gloo"), (2, 2, "cpu:gloo,cuda:nccl"), (8, 2, "cpu:gloo,cuda:nccl"), (1, 2, "cpu:gloo,cuda:gloo")],
)
def test_processes_that_share_a_gpu_do_not_exchange_by_nccl(
    gpus: int, processes: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert ranks.backend_for(gpus) == backend


def test_each_process_computes_on_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the run was made for a GPU of a certain number, which all of them would take."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ranks.own_device("cuda:0") == "cuda:0"  # of a process that trains alone
    monkeypatch.setattr(ranks, "world", lambda: 4)
    assert [ranks.own_device(d) for d in ("cuda", "cuda:0", "cpu", "mps")] == ["cuda:1", "cuda:1", "cpu", "mps"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert ranks.own_device("cuda") == "cuda:0"


# --------------------------------------------------------------------------- what goes wrong


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """This process is the first of two, which something else than torchrun has started; yields a free port, at which
    they meet."""
    port = free_port()
    values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    yield port


def test_a_process_that_never_comes_is_named(first_of_two: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "MEETING", timedelta(seconds=0.3))
    with pytest.raises(UserError, match=r"1 of the 2 processes .* did not come .*: 1\. .* Were they started") as error:
        ranks.join()
    assert error.value.code == ranks.NOT_MET and not ranks.started()


def test_a_process_that_came_before_a_restart_has_not_come_after_it(
    first_of_two: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of torchrun outlives a restart: with the names of before, both would wait at addresses of before."""
    store = TCPStore("127.0.0.1", first_of_two, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(ranks.distributed, "init_process_group", lambda *args, **options: None)
    monkeypatch.setattr(ranks, "MEETING", timedelta(seconds=0.3))
    for number in ("1", "0"):
        monkeypatch.setenv("RANK", number)
        ranks.join()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(UserError, match=r"1 of the 2 processes .* did not come"):
        ranks.join()
    del store


def test_a_port_in_use_is_named(first_of_two: int) -> None:
    with socket.create_server(("", first_of_two)), pytest.raises(UserError, match=f":{first_of_two}: .* Another prog"):
        ranks.join()


@pytest.mark.parametrize(
    ("library", "text"),
    [
        ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3", "was lost: it has ended"),
        ("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms", "did not answer for 30 minutes"),
    ],
)
def test_an_exchange_that_fails_is_an_error_that_says_what_to_do(
    library: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "started", lambda: True)
    with pytest.raises(UserError, match=f"{text}.* Resume the run"), ranks.losses_named():
        raise RuntimeError(library)
    with pytest.raises(RuntimeError, match="shapes"), ranks.losses_named():
        raise RuntimeError("shapes do not fit")


PROCESS = {
    "host": "one",
    "problem": "",
    "version of torch": "2.9",
    "source code of afresh": "a",
    "data": "b",
    "run": "c",
}


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"version of torch": "2.8"}, "another version of torch than process 0, on one: 2.8, and not 2.9. Install"),
        ({"source code of afresh": "x", "problem": "odd"}, "another source code of afresh than process 0, on one. Ins"),
        ({"problem": "No run at /r."}, "cannot open the run or its data: No run at /r. All machines"),
        ({"data": "x"}, "another data than process 0, on one, at the same path. All machines need the same folders"),
        ({"run": "x"}, "another run than process 0, on one, at the same path. All machines need the same folders"),
    ],
)
def test_a_process_that_has_something_else_is_named(other: dict[str, str], text: str) -> None:
    check_same([PROCESS, PROCESS])
    with pytest.raises(UserError) as error:
        check_same([PROCESS, PROCESS, {**PROCESS, "host": "three", **other}])
    assert str(error.value).startswith("Process 2, on three, ") and text in str(error.value)
    assert error.value.code == ranks.DIFFER


def test_one_process_tells_what_all_of_them_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, own = UserError("", ranks.DIFFER), UserError("", "disk")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert not follows(shared) and not follows(Interrupted())
    monkeypatch.setenv("RANK", "1")
    assert follows(shared) and follows(Interrupted()) and not follows(own)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_end_with_the_command_that_started_them(alone: afresh.Model, tmp_path: Path) -> None:
    """Also if that is killed without a word: they save, and end."""
    run, settings = tmp_path / "run", {**SETTINGS, "train.batch": 8, "train.micro_batch": 4}
    words = ["train", str(alone.path.parent / "lines.txt"), "--steps", "1000000", "--out", str(run), "--processes", "2"]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = subprocess.Popen([sys.executable, "-m", "afresh", *words], env=environment, stderr=subprocess.DEVNULL)
    with at(run, (5,), command.kill) as killed:
        command.wait(600)
    numbers = [int(file.read_text()) for file in tmp_path.glob("afresh-ranks-*/*.pid")]
    end = time.monotonic() + 600
    while any(is_alive(number) for number in numbers) and time.monotonic() < end:
        time.sleep(0.1)
    assert killed == [5] and len(numbers) == 2 and not any(is_alive(number) for number in numbers)
    told = json.loads(next(tmp_path.glob("afresh-ranks-*/ended.json")).read_bytes())
    assert told["error"] == "Interrupted" and f"saved at step {int((run / 'latest').read_text())}" in told["message"]


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True
