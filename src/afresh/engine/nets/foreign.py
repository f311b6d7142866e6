"""Networks of diffusers as velocities on the straight path, and the loss that they were trained with.

They were trained on the path of DDPM (Ho et al. 2020), z = sqrt(abar_k) x + sqrt(1 - abar_k) e at one of K discrete
steps. The straight path is x_t = (1 - t) e + t x. Divided by d = sqrt(t^2 + (1 - t)^2) it has the same form, with
abar = t^2 / d^2, so that the network is used for both:

    z = x_t / d,    eps = net(z, k(t)),    v = E[x - e | x_t] = (x_t - eps) / t.

k(t) is the step with the same log signal-to-noise ratio, log(abar / (1 - abar)) = 2 log(t / (1 - t)), which is
interpolated linearly between steps. Times beyond the ends of the schedule use its first or last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from afresh.core import Batch, Cond, CondSpec, Loss, Modules, Space, State, UserError
from afresh.core.rng import Rng
from afresh.engine.nets.pipelines import diffusers

Prediction = Literal["epsilon", "sample", "v_prediction", "flow"]  # flow: noise minus data of a straight path


class FolderConfig(BaseModel):
    """The configuration of a folder of diffusers.

    `network` and `schedule` are its config.json and scheduler_config.json, without the names of the classes, and
    `index` is its model_index.json. `classes`: number of classes, 0 for a network without labels. `snr_gamma`: the
    signal-to-noise ratio above which a step of training counts less (`snr_weight`); None: all steps count alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    architecture: str  # class of the network
    network: dict[str, Any]
    scheduler: str  # class of the scheduler
    schedule: dict[str, Any]
    index: dict[str, Any]
    classes: int = Field(0, ge=0)
    snr_gamma: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _of_ddpm(self) -> FolderConfig:
        if self.snr_gamma is not None and self.prediction == "flow":
            raise ValueError("a flow has weights of its own, by its times, so that snr_gamma does not apply")
        return self

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        kind: Prediction = self.schedule.get("prediction_type", "epsilon")
        return kind


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
        # abar of every step of DDPM, (K,) float64, decreasing.
        with torch.device("cpu"):
            known = diffusers().DDPMScheduler
            fields = {k: v for k, v in config.schedule.items() if k in ABAR}
            levels: Tensor = known(**fields).alphas_cumprod.double()
        abar = levels.clamp(1e-12, 1 - 1e-12)
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
    """The loss of the base: the mean squared error of its prediction at a random step (Ho et al. 2020, eq. 14), by
    `snr_weight` where the configuration has a gamma."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("velocity",)}
    averaged = ("velocity",)

    def __init__(self, config: FolderConfig, space: Space) -> None:
        self.space, self.gamma = space, config.snr_gamma

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = foreign(modules)
        k = net.draw_steps(rng, batch.index)
        noise = rng.normal("diffusers/noise", batch.index, self.space.shape)
        each = error(net, batch.x, noise, k, batch.cond)
        if self.gamma is not None:
            each = each * snr_weight(net, k, self.gamma)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def foreign(modules: Modules) -> Foreign:
    """The network of `build`."""
    net = modules["velocity"]
    assert isinstance(net, Foreign)
    return net


def answer(net: Foreign, x: Tensor, noise: Tensor, k: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
    """The prediction for examples that are noised at steps k, and its target, both as x."""
    alpha, sigma = net.at(k)
    z = alpha * x + sigma * noise
    targets = {"epsilon": noise, "sample": x, "v_prediction": alpha * noise - sigma * x, "flow": noise - x}
    return net.raw(z, k, cond), targets[net.prediction]


def error(net: Foreign, x: Tensor, noise: Tensor, k: Tensor, cond: Cond) -> Tensor:
    """Squared error of the prediction at steps k, averaged over the field, (B,)."""
    found, target = answer(net, x, noise, k, cond)
    return (found - target).square().flatten(1).mean(1)


def snr_weight(net: Foreign, k: Tensor, gamma: float) -> Tensor:
    """Weights of steps k, (B,): with r = alpha^2 / sigma^2 the error of the clean image counts min(r, gamma), so that
    that of noise counts min(r, gamma) / r and that of v min(r, gamma) / (r + 1) (Hang et al. 2023, sec. 3.4)."""
    alpha, sigma = (a.flatten() for a in net.at(k))
    ratio = (alpha / sigma).square()
    same = {"sample": torch.ones_like(ratio), "epsilon": ratio, "v_prediction": ratio + 1}[net.prediction]
    return ratio.clamp_max(gamma) / same


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
