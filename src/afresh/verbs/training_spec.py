"""What a training is asked for by `train`, `tune`, `distill` and `align`: each option once, for all faces.

The constructor of a specification is the signature of the function in Python; the options of the command are made from
the same fields. Nothing heavy is imported, since `--help` reads this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge

from afresh.core.errors import UserError
from afresh.core.minutes import minutes_of
from afresh.core.verb import Absent, Argument, Option, Setting
from afresh.verbs.options import Force, Seed

if TYPE_CHECKING:
    from afresh.engine.training.lora import LoraConfig
    from afresh.engine.training.training_clock import Clock
    from afresh.verbs.training_job import Job

BY_HAND, BUDGET, ADAPTER = "Set by hand", "Budget (one of them)", "Adapter"
WANTED, ASKED = "What is wanted (one of them)", "What is asked of the model while it learns"
RANK = 16  # of an adapter
WORDS = "afresh.faces.cli.words"

PathLike = str | os.PathLike[str]
Data = Any  # a path, or data in memory

Rank = Annotated[int | None, Option("Rank of the adapter; 16 by default.", ADAPTER)]
Lora = Annotated[bool, Option("Learn a small adapter, or everything.", ADAPTER, flags=("--lora/--full",))]
Settings = Mapping[str, Any]


def of_run(help: str) -> Argument:
    return Argument(help, metavar="RUN", complete="runs", shell=Path, parse=f"{WORDS}:run")


def of_base(help: str, kind: type[Option]) -> Option:
    return kind(help, metavar="BASE", complete="runs", shell=str, parse=f"{WORDS}:base")


def pairs(help: str, complete: str, flags: tuple[str, ...]) -> Option:
    python = 'As {"train.lr": 0.001}, or {"size": 32} of data.'
    return Option(help, BY_HAND, flags, "KEY=VALUE", complete, list[str], f"{WORDS}:settings", python=python)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What every training is asked for. Fields without an `Option` are fixed for the verbs that do not offer them."""

    minutes: Annotated[
        float | str | None,
        Option(
            "Minutes for all of it (data, training, measuring, the report): 5, 0.5, 90s, 2m, 1h30m.",
            BUDGET,
            metavar="MINUTES",
            shell=minutes_of,
        ),
    ] = None
    steps: Annotated[int | None, Option("Steps of training.", BUDGET)] = None
    seed: Seed = 0
    out: Annotated[
        PathLike | None,
        Option("Folder of the run; by default runs/NAME or runs/BASE-tuned, or beside its run.", shell=Path),
    ] = None
    force: Force = False
    device: Annotated[str | None, Option("cpu, cuda, cuda:1 or mps; the fastest by default.", BY_HAND)] = None
    processes: Annotated[
        int, Ge(1), Option("How many processes train together, each a part of every batch.", BY_HAND)
    ] = 1
    on: Annotated[
        str | None,
        Option("A Ray cluster whose machines train instead: ray://HOST, or local.", BY_HAND, metavar="ADDRESS"),
    ] = None
    settings: Annotated[
        Settings, pairs("A setting, as train.lr=0.001 or family.width=256.", "train_settings", flags=("--set",))
    ] = field(default_factory=dict)
    log: Annotated[
        str | Sequence[str],
        Option(
            "Also log curves and samples to tensorboard, trackio or wandb; may be repeated.",
            BY_HAND,
            metavar="NAME",
            complete="logs",
            shell=list[str],
            parse=f"{WORDS}:logs",
        ),
    ] = ()
    quiet: Annotated[bool, Option("Show neither the plan nor the progress.", shell=Absent)] = False
    lora: bool = field(default=False, init=False)
    rank: int | None = field(default=None, init=False)
    alpha: float | None = field(default=None, init=False)
    targets: Sequence[str] = field(default=(), init=False)
    tokens: int | None = field(default=None, init=False)

    verb: ClassVar[str]
    parts: ClassVar[Sequence[str]] = ("train", "family")  # of the settings

    def start(self, clock: Clock | None = None) -> Job:
        """Check, read, plan, and create the run's folder. `clock`: of the command, whose minutes are to be kept.

        Raises UserError before any time is spent on training.
        """
        job: Job = resolve_name(f"afresh.verbs.{'train' if self.verb == 'tune' else self.verb}:start")(self, clock)
        return job

    def set_of(self, part: str) -> dict[str, Any]:
        """The settings of a part by hand. Raises UserError for those of other parts, and invalid ones of training."""
        from afresh.engine.training.options import split_by_part

        return split_by_part(self.settings or {}, self.parts)[part]

    @property
    def budget_minutes(self) -> float | None:
        return None if self.minutes is None else minutes_of(self.minutes)

    def check_budget(self) -> None:
        """Raises UserError for several budgets, and for one that is not positive."""
        budgets = {"minutes": self.budget_minutes, "steps": self.steps, "tokens": self.tokens}
        given = {name: value for name, value in budgets.items() if value is not None}
        if len(given) > 1:
            raise UserError(f"Give one budget: `minutes`, `steps` or `tokens`. Given: {given}.")
        for name, value in given.items():
            if not 0 < value < 1e12:
                raise UserError(f"`{name}` must be a positive number. Given: {value}.")

    @property
    def set_train(self) -> dict[str, Any]:
        return self.set_of("train")

    @property
    def set_family(self) -> dict[str, Any]:
        return self.set_of("family")

    @property
    def adapted(self) -> LoraConfig | None:
        """The adapter that learns, None if all weights do. Raises UserError if it is not possible."""
        from afresh.engine.training.lora import LoraConfig

        if not self.lora:
            given = {"rank": self.rank is not None, "alpha": self.alpha is not None, "targets": bool(self.targets)}
            if names := [f"`{name}`" for name, value in given.items() if value]:
                raise UserError(
                    f"{', '.join(names)} is of an adapter: give `lora=True` with it, or leave it out with "
                    "`lora=False`.",
                    "not_lora",
                )
            return None
        rank = RANK if self.rank is None else self.rank
        if not 1 <= rank <= 4096 or (self.alpha is not None and not 0 < self.alpha < 1e6):
            raise UserError(f"`rank` must be from 1 to 4,096 and `alpha` positive. Given: {rank}, {self.alpha}.")
        alpha = 2.0 * rank if self.alpha is None else self.alpha
        return LoraConfig(rank=rank, alpha=alpha, targets=tuple(self.targets))


@dataclass(frozen=True, kw_only=True)
class TrainSpec(RunSpec):
    """Train a generative model on your own data, for 5 minutes if no budget is given.

    What the data is, which model, what size and how many steps are decided, shown and recorded in the run's folder.
    Ctrl-C saves; `afresh.resume(RUN)` continues as if training had never stopped.

    Raises UserError for bad usage or input, Diverged if training cannot go on, Interrupted after Ctrl-C (saved).
    """

    modality: Annotated[str | None, Option("The kind of data, if it is not clear.", complete="modalities")] = None
    base: Annotated[
        PathLike | None,
        of_base(
            "Begin with a model instead of random weights, as tune does; auto: small public weights on this machine, "
            "for little text.",
            Option,
        ),
    ] = None
    family: Annotated[
        str | None,
        Option(
            "The kind of model: transformer, masked, vae, gan, flow (also called diffusion), autoencoder.",
            complete="families",
        ),
    ] = None
    codec: Annotated[
        PathLike | None,
        Option(
            "The autoencoder whose latents are learnt: a run, a folder, a name on the hub, or none. By default, images "
            "of more than 96 pixels have a public one.",
            complete="runs",
            shell=str,
        ),
    ] = None
    tokens: Annotated[int | None, Setting("Tokens of training.")] = None
    path: Annotated[
        Data,
        Argument(
            "Your data: a file or a folder.",
            metavar="PATH",
            shell=Path,
            parse=f"{WORDS}:data",
            python="Or data in memory: a dataset, a data frame, arrays (N, H, W, C), a list of texts, images or "
            "sounds, pairs (example, label), or a loader of batches, which are kept as files in the user's data "
            "folder (~/.local/share/afresh/data on Linux).",
        ),
    ] = field(kw_only=False)
    validation: Annotated[
        Data, Option("Held-out data of your own: a file or a folder.", shell=Path, parse=f"{WORDS}:data")
    ] = None
    data: Annotated[Settings, pairs("How data is read, as size=32.", "data_options", flags=("--data",))] = field(
        default_factory=dict
    )
    lora: bool = field(default=True, init=False)
    adapter: str | None = field(default=None, init=False)
    commercial: bool = field(default=False, init=False)
    lr: float | None = field(default=None, init=False)

    verb = "train"

    @property
    def set_train(self) -> dict[str, Any]:
        return {**({} if self.lr is None else {"lr": self.lr}), **super().set_train}


@dataclass(frozen=True, kw_only=True)
class TuneSpec(TrainSpec):
    """Tune a model on your own data: a run of yours, public weights, or an adapter on one of them.

    Texts are learnt to be continued; of instructions (question and answer; prompt and completion; messages) the answers
    are learnt. A small adapter (LoRA) learns, or everything with `lora=False`. Without a budget the data is passed
    three times. The result is a run like any other, to sample, measure and export; an adapter is also stored by itself,
    in PEFT's format. With `adapter` it is the adapter of one person: small, apart, without a copy of the base, and
    deleted with proof (afresh rm BASE:NAME). The licence of public weights is said first, and kept with the run. Ctrl-C
    saves; `afresh.resume(RUN)` continues.

    Raises UserError if the base cannot be read, if its licence does not allow commerce (with `commercial`), and as
    `train` does.
    """

    base: Annotated[
        PathLike,
        of_base("A run, a folder or hub name of weights, a .gguf, a PEFT folder.", Argument),
    ] = field(kw_only=False)
    lora: Lora = True
    rank: Rank = None
    alpha: Annotated[float | None, Setting("Weight of the adapter; twice its rank by default.")] = None
    targets: Annotated[
        Sequence[str], Setting("Layers to adapt, by name or pattern; all hidden ones by default.", shell=list[str])
    ] = ()
    adapter: Annotated[
        str | None,
        Option(
            "The person whose data it is: the adapter is kept in the folder of the base, as BASE:NAME.",
            ADAPTER,
            metavar="NAME",
        ),
    ] = None
    commercial: Annotated[bool, Setting("Refuse a base whose licence does not allow commerce.")] = False
    lr: Annotated[float | None, Option("The highest learning rate.", BY_HAND)] = None
    family: None = field(default=None, init=False)
    codec: None = field(default=None, init=False)
    tokens: None = field(default=None, init=False)

    verb = "tune"


@dataclass(frozen=True, kw_only=True)
class DistillSpec(RunSpec):
    """Distill a flow into a student that samples in one to four steps what its teacher samples in twenty.

    The student starts from the teacher's weights and learns, on the teacher's data, to take long steps at once, for 5
    minutes if no budget is given. The result is a run like any other, which cannot be distilled again. Ctrl-C saves;
    `afresh.resume(RUN)` continues.

    Raises UserError if the teacher is not a flow, and as `train` does.
    """

    run: Annotated[PathLike, of_run("A run of the family flow, the teacher.")] = field(kw_only=False)
    guidance: Annotated[
        float | None, Option("The teacher's guidance, which becomes part of the student; 1 by default.")
    ] = None
    finest: Annotated[int, Setting("The largest number of steps that the student samples in: 1, 2, 4, 8, ...")] = 4

    verb = "distill"


@dataclass(frozen=True, kw_only=True)
class AlignSpec(RunSpec):
    """Align a model with a reward or with preferences, and hold it near to what it was.

    The reward is raised until samples are as far from those of the base model as `distance` allows, for 200 steps if no
    budget is given. The result is a run like any other, to sample and measure; its report shows the reward against the
    divergence and any alarms. Ctrl-C saves; `afresh.resume(RUN)` continues.

    Raises UserError if the method does not work for the family, RewardError if the reward fails, and as `train` does.
    """

    run: Annotated[PathLike, of_run("A run, which stays as it is.")] = field(kw_only=False)
    method: Annotated[
        str | None, Option("grpo, rloo, ppo, reinforce, dpo, ipo, kto, ...; the one that suits the model by default.")
    ] = None
    reward: Annotated[
        str | None,
        Option("A name (length:min=60, contains:dog, brightness), FILE.py:function, '!program', or a sum.", WANTED),
    ] = None
    preferences: Annotated[
        PathLike | None, Option("A file of votes, as afresh compare writes them.", WANTED, shell=Path)
    ] = None
    heldout_reward: Annotated[
        str | None,
        Option("A second reward, not learnt from: training ends once it falls, and the best weights are used.", WANTED),
    ] = None
    prompt: Annotated[Sequence[str], Option("A text to continue; may be repeated.", ASKED)] = ()
    prompts: Annotated[
        Sequence[str],
        Setting("A file of prompts, one per line.", shell=Path, parse=f"{WORDS}:lines", python="Here their list."),
    ] = ()
    prompt_tokens: Annotated[int, Setting("Take prompts of this many tokens from the training texts.")] = 0
    length: Annotated[int | None, Option("New tokens of a text; 64 by default.", ASKED)] = None
    distance: Annotated[
        float | None,
        Option(
            "How far samples may go from the base: in nats for texts (4 by default), otherwise in variances of the "
            "data (0.2 by default with draft). Methods that do not control it stop there.",
            WANTED,
        ),
    ] = None
    calls: Annotated[
        int | None,
        Option(
            "Search for items of high reward instead, asking it about at most so many different ones.",
            WANTED,
            python="The best are in the folder best/ of the run.",
        ),
    ] = None
    known: Annotated[
        PathLike | None,
        Setting("With `calls`: a run that searched by the same reward, whose answers are not asked again.", shell=Path),
    ] = None
    lora: Lora = False
    rank: Rank = None
    reward_seconds: Annotated[float, Setting("Seconds that a reward may take for a batch.")] = 60
    anyway: Annotated[bool, Setting("Use votes that are no better than guessing.")] = False
    settings: Annotated[
        Settings, pairs("A setting, as align.group=8 or train.lr=0.001.", "align_settings", flags=("--set",))
    ] = field(default_factory=dict)

    verb = "align"
    parts = ("align", "train", "sample")
