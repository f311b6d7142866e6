"""A process that has imported everything and computed nothing, so that a fork of it is a new training process at once.

`python -m tests.engine.training.zygote` reads an order as one line of JSON, forks, carries it out in the child, and
answers with one line: how the child ended. A child may fail at one of the points that it passes (see Points).
"""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import UserError
from afresh.core.errors import Diverged, Interrupted
from afresh.core.events import Event, listening
from afresh.engine.alignment.alignment_batches import AlignmentSource
from afresh.engine.evaluation import memorisation_monitor
from afresh.engine.training import checkpoint_saver, loop
from afresh.verbs import align, data_source, distill
from afresh.verbs.resume import resume
from afresh.verbs.train import start
from afresh.verbs.training_job import learn
from afresh.verbs.training_spec import AlignSpec, DistillSpec, TrainSpec, TuneSpec
from tests.named_settings import named

if find_spec("transformers") is not None:
    import transformers.models.auto.modeling_auto
    import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401

HAND = {"batch": 4, "micro_batch": 2, "threads": 1, "precision": "float32", "compile": False, "ema_half_life": 20.0}
HAND |= {"memorisation_limit": 0.0}  # how often copies are looked for depends on the time that passes
EVERY = {"save_every": 2, "log_every": 2, "eval_every": 3, "preview_every": 4}
TRANSFORMER = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2}
RUNS: dict[str, dict[str, Any]] = {  # by kind; the family is the kind, unless it is named
    "transformer": {"modality": "text", "data": {"context": 16}, "set_family": TRANSFORMER},
    "masked": {"modality": "text", "data": {"context": 16}, "set_family": {"width": 16, "layers": 1, "heads": 2}},
    "molecules": {"family": "transformer", "modality": "molecule", "data": {}, "set_family": TRANSFORMER},
    "logs": {
        "family": "transformer",
        "modality": "interactions",
        "data": {"split": "last"},
        "set_family": {**TRANSFORMER, "tied": True, "negatives": 4},
    },
    "gan": {
        "modality": "image",
        "data": {},
        "set_family": {"width": 4, "latent": 4, "cond": 8},
        "set_train": {"batch": 2},  # its steps have two players, and penalties of gradients: one micro-batch each
    },
    "flow": {"modality": "image", "data": {}, "set_family": {"widths": [4], "emb": 8}},
    "vae": {"modality": "image", "data": {}, "set_family": {"width": 4, "latent": 4}},
}
BASES = {"tuned": "transformer", "distilled": "flow", "aligned": "transformer"}  # what other runs are made of
PERSON = "person"  # the adapter of one, in the folder of its base
TURN = 3  # the step from which on a model becomes worse at every evaluation, where training is to end early
EARLY = {"save_every": 3, "eval_every": 1, "stop_rising": 0.01}


class Points:
    """Every point that a learning process passes where it could be stopped: around its steps, and around each call
    of the system that changes a file in `folder`. Their names go to the file `trace`; at the one numbered `at` (from 0)
    of those that `fault` can strike, it strikes.
    """

    def __init__(self, folder: Path, trace: Path, fault: str | None, at: int) -> None:
        self.folder, self.fault, self.at, self.passed = folder, fault, at, 0
        self.trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, name: str) -> None:
        name = name.replace(f".{os.getpid()}.tmp", ".tmp")  # the same whichever process it is
        os.write(self.trace, f"{name}\n".encode())
        if self.fault == "full" and not can_fill(name):
            return
        strikes = self.fault is not None and self.passed == self.at
        self.passed += 1
        if not strikes:
            return
        if self.fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), signal.SIGKILL if self.fault == "kill" else signal.SIGINT)

    def around(self, owner: Any, name: str, label: str, place: int | None = None) -> None:
        """Add a point before and after a function. `place`: the index of the argument that is the path."""
        inner: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            path = None if place is None else Path(str(args[place]))
            if path is not None and self.folder not in path.parents:
                return inner(*args, **options)
            point = label if path is None else f"{label} {path.name}"
            self(f"{point}: before")
            out = inner(*args, **options)
            self(f"{point}: after")
            return out

        setattr(owner, name, call)

    def set_up(self) -> None:
        self.around(loop, "take_step", "step")
        self.around(os, "replace", "rename to", 1)
        self.around(os, "mkdir", "make", 0)
        self.around(shutil, "rmtree", "remove", 0)
        unlink, fsync, inner = os.unlink, os.fsync, pathlib.Path.open

        def removing(path: Any, *, dir_fd: int | None = None) -> None:
            if dir_fd is not None:  # as rmtree calls it
                self(f"unlink {path}: before")
            unlink(path, dir_fd=dir_fd)

        def syncing(handle: int) -> None:
            self("sync: before")
            fsync(handle)

        def opening(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
            writes = mode in ("wb", "ab") and self.folder in path.parents
            return (
                Torn(inner(path, mode, *rest, **options), path.name, self)
                if writes
                else inner(path, mode, *rest, **options)
            )

        os.unlink, os.fsync, pathlib.Path.open = removing, syncing, opening  # type: ignore[assignment,method-assign]


def can_fill(point: str) -> bool:
    """Whether a full disk can occur at this point."""
    return point.startswith(("write", "sync", "rename", "make")) and not point.endswith("after")


class Torn:
    """A file that is written in two halves, with points before, between and after."""

    def __init__(self, file: io.BufferedWriter, name: str, point: Points) -> None:
        self.file, self.name, self.point = file, name, point

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        for part, where in ((data[: len(data) // 2], "before"), (data[len(data) // 2 :], "half")):
            self.point(f"write {self.name}: {where}")
            self.file.write(part)
            self.file.flush()
        self.point(f"write {self.name}: after")

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


def data_path(run: Path, modality: str) -> Path:
    suffix = {"text": "txt", "image": "npz", "molecule": "smi", "interactions": "csv"}[modality]
    return run.parent / f"data.{suffix}"


def make_data(path: Path, modality: str) -> Path:
    """The path of a few sentences, molecules or choices, or of 60 of scikit-learn's digits."""
    if modality == "molecule":
        rings, ends = ("c1ccccc1", "c1ccncc1", "C1CCNCC1", "c1ccoc1"), ("CO", "CN", "CC", "CF", "CS", "CCO", "CCl")
        path.write_text("".join(f"{ring}{end}\n" for ring in rings for end in ends))
        return path
    if modality == "interactions":
        events = [f"u{u},i{(u + e) % 8},{1000 * e + u}" for u in range(30) for e in range(4 + u % 3)]
        path.write_text("\n".join(["user,item,time", *events, ""]))
        return path
    if modality == "text":
        animals, things = ("cat", "dog", "hen", "fox", "pig", "cow"), ("mat", "log", "box", "bed", "hat", "rug")
        path.write_text("".join(f"the {a} sat on the {b} and saw a {a}.\n" for a in animals for b in things))
        return path
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images[:60] * 15.9).astype(np.uint8)
    np.savez(path, x=pixels, y=digits.target[:60])
    return path


class AtOnce:
    """A thread whose work is done when it starts, so that the points of a run have one order."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self.target = target

    def start(self) -> None:
        self.target()

    def is_alive(self) -> bool:
        return False

    def join(self) -> None:
        pass


class Late(AtOnce):
    """A thread that does nothing until it is waited for: a checkpoint is written when the next one is due."""

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        return True

    def join(self) -> None:
        self.target()


def limit_files(order: Mapping[str, Any]) -> None:
    """Limit files to order["file_limit"] bytes, beyond which the system fails a write as on a full disk."""
    if limit := order.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def early_end(order: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that is to end early, by order["early"]: its loss, copies, its reward or its distance."""
    early = order.get("early")
    return {**EARLY, "memorisation_limit": 0.1 if early == "copies" else 0.0} if early else {}


def worsen(early: str | None) -> None:
    """Let the model look worse at every evaluation from the step TURN on, so that its training ends early."""

    def beyond(learner: loop.Learner) -> float:
        return abs(learner.step - TURN)

    def loss(learner: loop.Learner, *rest: Any) -> float:
        return 1.0 + beyond(learner)

    def metrics(source: AlignmentSource, learner: loop.Learner) -> dict[str, float]:
        best = {"heldout_reward": 1 - 0.1 * beyond(learner), "heldout_reward_error": 0.01}
        return {"diversity": 1.0, **(best if early == "reward" else {"kl": 0.1 * learner.step})}

    def distances(monitor: Any, learner: loop.Learner, n: int, part: int) -> Any:
        return np.full(n, 0.0 if learner.step >= TURN else 1e6)

    if early == "loss":
        data_source.heldout_loss = loss  # type: ignore[assignment]
    elif early == "copies":
        memorisation_monitor.MemorisationMonitor.distances = distances  # type: ignore[assignment]
        memorisation_monitor.COST = 1e9  # every evaluation looks, however few the steps are
    elif early is not None:
        AlignmentSource.metrics = metrics  # type: ignore[method-assign]


def begin(order: Mapping[str, Any]) -> None:
    """Create a run of `steps` steps in order["run"] without training, or to the fault; a base that is there is used."""
    run = Path(order["run"])
    kind = order["family"]
    if kind in BASES or kind == PERSON:
        base = run.parents[1] if kind == PERSON else run.parent / "base"
        if not (base / "run.json").is_file():
            plain = {k: v for k, v in order.items() if k != "fault"}
            begin({**plain, "run": str(base), "family": BASES.get(kind, "transformer"), "steps": 3, "early": None})
            learn(resume(base))
        strike(order)
        train = {**HAND, **EVERY, **early_end(order)}
        text = data_path(base, "text")
        if kind == PERSON:
            start(
                TuneSpec(
                    base, text, adapter=run.name, rank=2, alpha=32.0, steps=order["steps"], settings=named(train=train)
                )
            )
        elif kind == "tuned":
            start(TuneSpec(base, text, lora=False, steps=order["steps"], out=run, settings=named(train=train)))
        elif kind == "aligned":
            far = order.get("early") == "distance"
            align.start(
                AlignSpec(
                    base,
                    method="rejection" if far else "grpo",
                    distance=0.5 if far else None,
                    reward="length:max=5",
                    heldout_reward="contains:a",
                    steps=order["steps"],
                    out=run,
                    settings=named(
                        sample={"length": 6},
                        align={"samples": 2, "reuse": 1} if far else {"group": 2},
                        train={k: v for k, v in train.items() if k not in ("memorisation_limit", "stop_rising")},
                    ),
                )
            )
        else:
            distill.start(DistillSpec(base, steps=order["steps"], out=run, settings=named(train=train)))
        return
    if kind == "wrapped":
        from tests.runs.formats.causal_models import write_folder

        folder, data = run.parent / "base", make_data(data_path(run, "text"), "text")
        write_folder(folder, "gpt_neox")
        train = {**HAND, **EVERY}
        start(TuneSpec(folder, data, rank=2, alpha=32.0, steps=order["steps"], out=run, settings=named(train=train)))
        return
    options = RUNS[kind]
    data = make_data(data_path(run, options["modality"]), options["modality"])
    limit_files(order)
    train = {**HAND, **EVERY, **options.get("set_train", {}), **early_end(order), **order.get("train", {})}
    strike(order)
    spec = TrainSpec(
        data,
        modality=options["modality"],
        family=options.get("family", kind),
        steps=order["steps"],
        out=run,
        device="cpu",
        data=options["data"],
        settings=named(family=options["set_family"], train=train),
    )
    start(spec)


def go_on(order: Mapping[str, Any]) -> None:
    """Train to the end, or to the fault."""
    limit_files(order)
    run = Path(order["run"])
    worsen(order.get("early"))
    checkpoint_saver.Thread = Late if order.get("late") else AtOnce  # type: ignore[assignment,misc]
    job = resume(run)
    strike({"fault": None, **order})
    learn(job)


def strike(order: Mapping[str, Any]) -> None:
    """From here on, note the points that are passed, and let the fault strike, if the order has one."""
    if "fault" in order:
        Points(Path(order["run"]), Path(order["trace"]), order["fault"], order.get("at", 0)).set_up()


def warn(event: Event) -> None:
    """A listener that shows warnings of files only."""
    if event.kind == "warning" and event.code != "alarm":  # of alignment, which are of what is learnt
        print(f"warning: {event.text}")


def child(order: Mapping[str, Any]) -> int:
    """The exit code that the command line would return. Warnings and errors are written to order["output"]."""
    with Path(order["output"]).open("w") as output:
        sys.stdout = sys.stderr = output
        try:
            torch.set_num_threads(1)
            with listening(warn):
                {"begin": begin, "go on": go_on}[order["do"]](order)
            code, last = 0, ""
        except (UserError, Diverged, Interrupted) as e:
            code = {UserError: 2, Diverged: 3, Interrupted: 130}[type(e)]
            last = f"{type(e).__name__}: {e}"
        except BaseException:
            code, last = 1, traceback.format_exc()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output.write(last)
    return code


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(order))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # minus the signal, when one ended it


if __name__ == "__main__":
    import torch._dynamo  # which evaluation would import in every child anew

    from afresh.core import registry

    for name, options in RUNS.items():
        registry.family(options.get("family", name))
        registry.modality(options["modality"])
    main()
