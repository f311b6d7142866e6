"""Training a run by the processes of a Ray cluster, which Ray Train starts, watches and restarts: the extra `cluster`.

As with processes of one machine (verbs/processes.py), the parent has planned the run and made its folder, which all
machines see. An actor on the first machine of the cluster (verbs/mailbox.py) takes what process 0 reports and how
training ended, and holds whether the parent wants it to stop. When a machine is lost, all processes are started again
on those that are left, from the newest checkpoint; they may be fewer.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from afresh.core import UserError, events
from afresh.core.events import Event
from afresh.core.plural import counted
from afresh.data.storage.ray_cluster import LOCAL, connected
from afresh.engine.training import ranks
from afresh.engine.training.signals import interrupts_caught
from afresh.engine.training.training_clock import Clock
from afresh.verbs.mailbox import Mailbox, word_in
from afresh.verbs.processes import (
    ATTEMPTS,
    Order,
    account_of,
    check_processes,
    lost,
    raise_again,
)

T = TypeVar("T")
HEAD = {"node:__internal_head__": 0.001}  # the resource by which Ray places something on the first machine
FOLDER = ".ray"  # of a run while it is trained: what Ray Train writes
ANSWER = 120.0  # seconds in which a machine of the cluster must answer
START = 300  # seconds in which the processes must have started
SETTLED = 10.0  # seconds until the cluster knows which of its machines are lost
GRACE = 10.0  # seconds in which all processes should have ended after one has told how
PROCESS = "afresh.verbs.cluster_rank"
SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START),
}


# --------------------------------------------------------------------------- the parent


def check_cluster(address: str, processes: int) -> None:
    """Raises UserError unless so many processes can train on a cluster."""
    if ranks.launched():
        raise UserError("torchrun and a cluster of Ray cannot both start processes: leave `on` out.", "two_engines")
    if address == LOCAL:
        check_processes(processes)
    with connected(address, processes) as ray:
        cpus_each(machines(ray), processes)


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster, and what it has."""

    name: str
    number: str
    cpus: int
    gpus: int

    def fit(self, cpus: int, gpu: bool) -> int:
        """How many processes it has room for, with so many CPUs each, and a GPU if one is needed."""
        return min(self.cpus // cpus, self.gpus) if gpu else self.cpus // cpus


def machines(ray: Any) -> list[Machine]:
    """The machines of the cluster, as far as it knows that they are there."""
    alive = [(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Machine(node["NodeManagerHostname"], node["NodeID"], int(has.get("CPU", 0)), int(has.get("GPU", 0)))
        for node, has in alive
    ]


def places(among: Sequence[Machine], gpu: bool = False, cpus: int = 1) -> int:
    """How many processes have room."""
    return sum(machine.fit(cpus, gpu) for machine in among)


def cpus_each(among: Sequence[Machine], processes: int, gpu: bool = False, name: str = "processes") -> int:
    """The most CPUs that each of so many processes can have. Raises UserError, of the option with this name, if there
    is less than one."""
    for each in range(max((machine.cpus for machine in among), default=0), 0, -1):
        if 1 <= processes <= places(among, gpu, each):
            return each
    raise UserError(
        f"`{name}` must be from 1 to {places(among, gpu)}, one for each {'GPU' if gpu else 'CPU'} of the "
        f"{counted(len(among), 'machine')} of the cluster. Given: {processes}.",
        "range",
        name=name,
    )


def learn_on(
    address: str, path: Path, processes: int, clock: Clock | None, ignore_stop: bool, log: Sequence[str], device: str
) -> float:
    """Train a run by so many processes of a cluster. Returns the seconds spent. Raises what a single process would
    raise, and UserError if the cluster cannot be used or is lost."""
    start = time.perf_counter()
    own = None if clock is None else clock.wall()
    order = Order(str(path.resolve()), str(Path.cwd()), own, ignore_stop, tuple(log))
    with connected(address, processes) as ray, run_folder_shared(ray, path.resolve()):
        gpu = device.startswith("cuda")
        cpus_each(machines(ray), processes, gpu)
        on_head = {"num_cpus": 0, "resources": HEAD}
        mailbox = ray.remote(**on_head)(Mailbox).remote()
        try:
            fitting = ray.remote(**on_head, max_retries=0, runtime_env={"env_vars": SETTINGS})(fit)
            account = follow(ray, mailbox, fitting.remote(mailbox, vars(order), processes, gpu))
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise lost(path, in_short(error)) from error
        finally:
            with suppress(ray.exceptions.RayError, ConnectionError):
                ray.kill(mailbox)
    raise_again(account_of(lost(path, "Ray Train ended")) if account is None else account)
    return time.perf_counter() - start


def follow(ray: Any, mailbox: Any, training: Any) -> dict[str, Any] | None:
    """Hand on the events of process 0 to the listener of this context until training has ended; returns how. An
    interruption is passed on."""
    asked, account, running = False, None, True
    with interrupts_caught() as interrupted:
        try:
            while running and not account:  # an error ends it at once: the others may wait for the one that met it
                running = not ray.wait([training], timeout=0.2)[0]
                lines, account = ray.get(mailbox.news.remote())
                for line in lines:
                    events.emit(Event(**json.loads(line)))
                if interrupted() and not asked:
                    asked = True
                    ray.get(mailbox.ask_to_stop.remote())
            running = running and not ray.wait([training], timeout=GRACE)[0]
        finally:
            if running:
                ray.cancel(training, force=True)
    if account is None:
        ray.get(training)
    return account


def fit(mailbox: Any, order: dict[str, Any], processes: int, gpu: bool) -> None:
    """Train by Ray Train, again and again on the machines that are left while some are lost: a task on the first
    machine of the cluster."""
    import ray

    train: Any = import_module("ray.train")  # it chooses its types as it is imported
    unmet = 0
    while True:
        begun = len(ray.get(mailbox.attempts.remote()))
        left = machines(ray)
        count = min(processes, places(left, gpu))
        needed = {"CPU": float(cpus_each(left, count, gpu)), **({"GPU": 1.0} if gpu else {})}
        try:
            trainer(mailbox, order, count, needed).fit()
            return
        except train.TrainingFailedError as error:
            if ray.get(mailbox.ended.remote()):
                return
            unmet = unmet + 1 if len(ray.get(mailbox.attempts.remote())) == begun else 0
            if unmet == ATTEMPTS:
                why = f"they were not started in {ATTEMPTS * START:.0f} seconds. Is the cluster free? {in_short(error)}"
                ray.get(mailbox.end.remote(account_of(lost(Path(order["run"]), why))))
                return
        time.sleep(SETTLED)


def trainer(mailbox: Any, order: dict[str, Any], processes: int, needed: dict[str, float]) -> Any:
    """What trains a run by so many processes, once."""
    train: Any = import_module("ray.train")
    torch: Any = import_module("ray.train.torch")
    backend = "cpu:gloo,cuda:nccl" if "GPU" in needed else "cpu:gloo"
    return torch.TorchTrainer(
        import_module(PROCESS).process,  # by name, as torchrun is given it, since it imports what imports this
        train_loop_config={"mailbox": mailbox, "order": order},
        torch_config=torch.TorchConfig(backend=backend, timeout_s=int(ranks.TIMEOUT.total_seconds())),
        scaling_config=train.ScalingConfig(num_workers=processes, use_gpu="GPU" in needed, resources_per_worker=needed),
        run_config=train.RunConfig(
            name=FOLDER,
            storage_path=order["run"],
            # A lost machine may not come back, so that Ray would wait for it.
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def in_short(error: Exception) -> str:
    """The last line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


# --------------------------------------------------------------------------- the folder


def on_each_machine(ray: Any, function: Callable[..., T], *given: Any) -> Iterator[tuple[Machine, T]]:
    """What a function returns on each machine of the cluster. Raises UserError, which names one that is silent."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    for machine in machines(ray):
        there = NodeAffinitySchedulingStrategy(machine.number, soft=False)
        answer = ray.remote(num_cpus=0, scheduling_strategy=there)(function).remote(*given)
        try:
            yield machine, ray.get(answer, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            raise UserError(
                f"The machine {machine.name} of the cluster did not answer within {ANSWER:.0f} "
                f"seconds: {in_short(error)} Are Python and afresh installed there?",
                "machine_silent",
            ) from error


@contextmanager
def run_folder_shared(ray: Any, path: Path) -> Iterator[None]:
    """A run's folder that every machine of the cluster sees. Raises UserError, which names one that does not."""
    folder, word = path / FOLDER, secrets.token_hex(8)
    folder.mkdir(exist_ok=True)
    try:
        (folder / "word").write_text(word)
        for machine, seen in on_each_machine(ray, word_in, str(folder / "word")):
            if seen != word:
                raise UserError(
                    f"The machine {machine.name} of the cluster does not see the run's folder, {path}. "
                    "All machines need it at the same path, as on a file system over the network: give such a folder "
                    "with `out`.",
                    "folder_not_shared",
                )
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
