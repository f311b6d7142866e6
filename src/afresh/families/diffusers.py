"""Networks of diffusers (UNet2DModel, DiTTransformer2DModel) as velocities on the straight path, for fine-tuning.

They were trained on the path of DDPM (Ho et al. 2020), z = sqrt(abar_k) x + sqrt(1 - abar_k) e at one of K discrete
steps. The straight path is x_t = (1 - t) e + t x. Divided by d = sqrt(t^2 + (1 - t)^2) it has the same form, with
abar = t^2 / d^2, so that the network is used for both:

    z = x_t / d,    eps = net(z, k(t)),    v = E[x - e | x_t] = (x_t - eps) / t.

k(t) is the step with the same log signal-to-noise ratio, log(abar / (1 - abar)) = 2 log(t / (1 - t)), which is
interpolated linearly between steps. Times beyond the ends of the schedule use its first or last step. Euler's rule on
this path equals DDIM (Song et al. 2021, eq. 12), up to rounding and for any times, as both are exact for constant (x,
eps).

`afresh tune FOLDER DATA` creates such runs. The network is the module of diffusers, so that it can be exported to a
folder that diffusers opens. The loss is that of diffusers' training scripts too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Edit,
    Evaluations,
    Family,
    Likelihood,
    Loss,
    Modules,
    PlanHints,
    Predict,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.nets.pipelines import diffusers
from afresh.sampling.edit import edit
from afresh.sampling.guidance import classifier_free
from afresh.sampling.ode import EVALUATIONS, SOLVERS, times

Architecture = Literal["UNet2DModel", "DiTTransformer2DModel"]
Prediction = Literal["epsilon", "sample", "v_prediction", "flow"]  # flow: noise minus data of a straight path


class FolderConfig(BaseModel):
    """The configuration of a folder of diffusers.

    `network` and `schedule` are its config.json and scheduler_config.json, without the names of the classes, and
    `index` is its model_index.json. `classes`: number of classes, 0 for a network without labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    architecture: str  # class of the network
    network: dict[str, Any]
    scheduler: str  # class of the scheduler
    schedule: dict[str, Any]
    index: dict[str, Any]
    classes: int = Field(0, ge=0)

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        kind: Prediction = self.schedule.get("prediction_type", "epsilon")
        return kind


class DiffusersConfig(FolderConfig):
    """The configuration of a network over pixels."""

    architecture: Architecture

    @property
    def clip(self) -> float | None:
        """The bound to which sampling in diffusers clips the predicted clean image; None if it does not clip."""
        return float(self.schedule.get("clip_sample_range", 1.0)) if self.schedule.get("clip_sample", True) else None


class DiffusersSettings(BaseModel):
    """Options of sampling.

    `steps`: number of steps of the `solver`; heun evaluates the network twice in each step, euler (which is DDIM), ab2
    and dpmpp once. `grid`: times evenly spaced in the steps of the base's schedule (schedule), or on the straight path
    (even), as in all edits. `clip`: clip the predicted clean image to the range of the base's scheduler, if it has one.
    `guidance`: scale of classifier-free guidance. `resample`: number of repetitions of each step of an edit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(50, ge=1, le=1000)
    solver: Literal["euler", "heun", "ab2", "dpmpp"] = "euler"
    grid: Literal["schedule", "even"] = "schedule"
    clip: bool = True
    guidance: float = Field(1.0, ge=0, le=100)
    resample: int = Field(4, ge=1, le=100)


def noise_levels(schedule: Mapping[str, Any]) -> Tensor:
    """abar of every step of DDPM, (K,) float64, decreasing."""
    with torch.device("cpu"):
        known = diffusers().DDPMScheduler
        fields = {k: v for k, v in schedule.items() if k in ABAR}
        levels: Tensor = known(**fields).alphas_cumprod.double()
    return levels


ABAR = {  # the fields of a scheduler that determine abar
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
}


class Classes(nn.Embedding):
    """The class embedding of diffusers with one more id, for no class: the mean of all, as the base has no null."""

    def forward(self, ids: Tensor) -> Tensor:
        rows = F.embedding(ids.clamp_max(self.num_embeddings - 1), self.weight)
        return torch.where((ids < self.num_embeddings)[:, None], rows, self.weight.mean(0))


class Foreign(nn.Module):
    """The velocity of a network of diffusers, `net`: (x (B, C, H, W), t (B,), Cond) -> (B, C, H, W)."""

    def __init__(self, config: FolderConfig, conds: CondSpec) -> None:
        super().__init__()
        self.net = network(config)
        self.label = next(iter(conds), None)
        self.classes, self.prediction = config.classes, config.prediction
        self.discrete = config.network.get("time_embedding_type") == "learned"
        abar = noise_levels(config.schedule).clamp(1e-12, 1 - 1e-12)
        with torch.device("cpu"):
            ratio = (abar / (1 - abar)).log().float()
        self.register_buffer("ratio", ratio, persistent=False)  # log(abar / (1 - abar)), decreasing

    def train(self, mode: bool = True) -> Foreign:
        """Stays in evaluation mode, as dropout in diffusers would use torch's global generator."""
        return super().train(False)

    def step_of(self, t: Tensor) -> Tensor:
        """k(t), (B,) float32: the step, possibly between two steps, at which the schedule has the noise level of t."""
        table = self.get_buffer("ratio")
        target = 2 * (t.float().clamp_min(1e-12).log() - (1 - t.float()).clamp_min(1e-12).log())
        # table[after - 1] >= target >= table[after]; by counting, as ONNX has no searchsorted
        after = (table > target[:, None]).sum(1).clamp(1, len(table) - 1)
        a, b = table[after - 1], table[after]
        share = ((a - target) / (a - b).clamp_min(1e-12)).clamp(0, 1)
        k: Tensor = after - 1 + share
        return k.round() if self.discrete else k

    def draw_steps(self, rng: Rng, index: Tensor) -> Tensor:
        """The steps at which the draws `index` (B,) are learnt, (B,) float32: any is as likely."""
        count = len(self.get_buffer("ratio"))
        return (rng.uniform("diffusers/step", index) * count).long().clamp_max(count - 1).float()

    def at(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = sqrt(abar) and sigma = sqrt(1 - abar) at steps k (B,), each (B, 1, 1, 1)."""
        table = self.get_buffer("ratio")
        low = k.floor().long().clamp(0, len(table) - 1)
        high = (low + 1).clamp_max(len(table) - 1)
        ratio = torch.lerp(table[low], table[high], (k - low).to(table.dtype))[:, None, None, None]
        return torch.sigmoid(ratio).sqrt(), torch.sigmoid(-ratio).sqrt()

    def raw(self, z: Tensor, k: Tensor, cond: Cond) -> Tensor:
        """The network's output for z of unit variance at steps k (B,), in float32, without a predicted variance."""
        kind = {} if not self.classes else {"class_labels": self.ids(cond, z.device)}
        step = k.long() if self.discrete else k
        out: Tensor = self.net(z, step, return_dict=False, **kind)[0]
        return out[:, : z.shape[1]].float()

    def ids(self, cond: Cond, device: torch.device) -> Tensor:
        """The ids of the classes, (B,) int64; rows without a class have the id after the last."""
        if self.label is None:
            return torch.full((cond.size,), self.classes, device=device)
        return torch.where(cond.present[self.label], cond.parts[self.label], self.classes)

    def parts(self, z: Tensor, k: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """The predicted clean image x and noise e of z = alpha x + sigma e at step k."""
        alpha, sigma = self.at(k)
        out = self.raw(z, k, cond)
        if self.prediction == "sample":
            return out, (z - alpha * out) / sigma
        if self.prediction == "v_prediction":  # Salimans and Ho 2022, app. D: v = alpha e - sigma x
            return alpha * z - sigma * out, alpha * out + sigma * z
        return (z - sigma * out) / alpha, out

    def forward(self, x: Tensor, t: Tensor, cond: Cond, clip: float | None = None) -> Tensor:
        """x - e. With `clip`, the predicted clean image is clipped to [-clip, clip] and the noise adapted to it."""
        s = t.float().view(-1, 1, 1, 1)
        z = x.float() / ((1 - s).square() + s.square()).sqrt()
        k = self.step_of(t)
        clean, noise = self.parts(z, k, cond)
        if clip is not None:
            alpha, sigma = self.at(k)
            clean = clean.clamp(-clip, clip)
            noise = (z - alpha * clean) / sigma
        return clean - noise


def network(config: FolderConfig) -> nn.Module:
    """The module of diffusers with random weights. Raises UserError if its version rejects the configuration."""
    kind = getattr(diffusers(), config.architecture)
    try:
        net: nn.Module = kind(**config.network)
    except (TypeError, ValueError, NotImplementedError) as e:
        raise UserError(f"diffusers cannot build a {config.architecture} from its config.json: {e}.") from None
    table = getattr(net, "class_embedding", None)
    if isinstance(table, nn.Embedding):
        with_none = Classes(table.num_embeddings, table.embedding_dim)
        with_none.weight = table.weight
        net.class_embedding = with_none
    return net


class DiffusersObjective:
    """The loss of the base: the mean squared error of its prediction at a random step (Ho et al. 2020, eq. 14)."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("velocity",)}
    averaged = ("velocity",)

    def __init__(self, config: FolderConfig, space: Space) -> None:
        self.space = space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = foreign(modules)
        k = net.draw_steps(rng, batch.index)
        noise = rng.normal("diffusers/noise", batch.index, self.space.shape)
        each = error(net, batch.x, noise, k, batch.cond)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def foreign(modules: Modules) -> Foreign:
    """The network of `build`."""
    net = modules["velocity"]
    assert isinstance(net, Foreign)
    return net


def error(net: Foreign, x: Tensor, noise: Tensor, k: Tensor, cond: Cond) -> Tensor:
    """Squared error of the prediction at steps k, averaged over the field, (B,)."""
    alpha, sigma = net.at(k)
    z = alpha * x + sigma * noise
    targets = {"epsilon": noise, "sample": x, "v_prediction": alpha * noise - sigma * x, "flow": noise - x}
    return (net.raw(z, k, cond) - targets[net.prediction]).square().flatten(1).mean(1)


def score(modules: Modules, config: FolderConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus the error, averaged over eight evenly spaced steps, (B,). It is not a likelihood."""
    net = foreign(modules)
    count = len(net.get_buffer("ratio"))
    total = torch.zeros(len(batch.x), device=batch.x.device)
    for i in range(8):
        k = torch.full((len(batch.x),), float(int((i + 0.5) * count / 8)), device=batch.x.device)
        noise = rng.normal(f"diffusers/score/{i}", batch.index, space.shape)
        total -= error(net, batch.x, noise, k, batch.cond) / 8
    return total


# --------------------------------------------------------------------------- sampling


def predictor(modules: Modules, clip: float | None = None) -> Predict:
    """The velocity as a Predict."""
    net = foreign(modules)

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return net(x, t, cond, clip), state

    return predict


def grid_of(net: Foreign, settings: DiffusersSettings) -> Tensor:
    """Times from noise to data, (steps + 1,) float64 on the CPU.

    For the grid `schedule`: evenly spaced steps of DDPM from the last ("trailing" in diffusers), followed by t = 1.
    """
    if settings.grid == "even":
        return times(settings.steps)
    ratio = net.get_buffer("ratio").cpu().double()
    count = len(ratio)
    if settings.steps > count:
        raise UserError(f"steps must be at most {count}, the number of steps of the base model, not {settings.steps}.")
    k = (count - torch.arange(settings.steps, dtype=torch.float64) * count / settings.steps).round().long() - 1
    inner = torch.sigmoid(ratio[k] / 2)  # t / (1 - t) = sqrt(abar / (1 - abar))
    return torch.cat([inner, inner.new_ones(1)])


@torch.no_grad()
def sample(
    modules: Modules,
    config: DiffusersConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: DiffusersSettings,
) -> Tensor:
    """Samples (n, *space.shape) from rng.normal("sample/noise", index) at the first of the times, as in diffusers."""
    net = foreign(modules)
    noise = rng.normal("sample/noise", index, space.shape)
    ts = grid_of(net, settings)
    start = noise * float(((1 - ts[0]).square() + ts[0].square()).sqrt())  # unit variance on DDPM's path
    return SOLVERS[settings.solver](guided(modules, config, settings), start, cond, ts)


def guided(modules: Modules, config: DiffusersConfig, settings: DiffusersSettings) -> Predict:
    """The velocity under the settings' guidance. Predictions with and without the condition are clipped alike."""
    return classifier_free(predictor(modules, config.clip if settings.clip else None), settings.guidance)


@torch.no_grad()
def edited(
    modules: Modules,
    config: DiffusersConfig,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: DiffusersSettings,
) -> Tensor:
    """`sampling.edit.edit` at even times of the straight path: (n, *space.shape). Raises UserError as it does."""
    return edited_by(guided(modules, config, settings), space, task, cond, rng, index, settings)


def edited_by(
    predict: Predict,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: DiffusersSettings,
) -> Tensor:
    """`edited` by any velocity."""
    return edit(
        predict,
        task,
        rng.normal("sample/noise", index, space.shape),
        cond,
        lambda k: SOLVERS[settings.solver],
        settings.steps,
        std=space.std,
        resample=1 if task.keep is None else settings.resample,
        fresh=lambda k, shape: rng.normal(f"sample/resample/{k}", index, space.shape),
    )


def evaluations(space: Space, settings: DiffusersSettings) -> int:
    """Of the network for a sample: of both branches of guidance in every step."""
    return settings.steps * EVALUATIONS[settings.solver] * (1 if settings.guidance == 1 else 2)


def accepts(space: Space) -> str | None:
    if space.kind != "field" or len(space.shape) != 3:
        return "networks of diffusers generate images (C, H, W); tokens go with transformer, other fields with flow"
    return None


def sizes(space: Space) -> Sequence[DiffusersConfig]:
    """Always raises UserError: the size is that of the base model."""
    raise UserError("The family diffusers needs a base model, a folder of diffusers: afresh tune FOLDER DATA.")


def build(config: DiffusersConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError for conditions that the network does not support."""
    labels = {k: len(p.classes) for k, p in conds.items() if p.kind == "label"}
    if len(labels) < len(conds) or list(labels.values()) not in ([], [config.classes]):
        raise UserError(f"The base model has {config.classes} classes and no other conditions, not {', '.join(conds)}.")
    return {"velocity": Foreign(config, conds)}


FAMILY = Family(
    name="diffusers",
    accepts=accepts,
    config=DiffusersConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=lambda parameters, space: parameters // 25,
        batch=lambda examples, space: 16,
        recipe=lambda space: {
            "optimizer": "adamw",
            "lr": 1e-4,
            "betas": (0.9, 0.999),
            "weight_decay": 0.01,
            "clip": 1.0,
        },
    ),
    build=build,
    objective=DiffusersObjective,
    sampling=Sampling(DiffusersSettings, sample),
    likelihood=Likelihood(score),
    edit=edited,
    evaluations=Evaluations(
        evaluations, lambda space, settings, keep: evaluations(space, settings) * (settings.resample if keep else 1)
    ),
    made_by="tune",
    how="shapes noise step by step",
)
