"""Text-to-image pipelines of diffusers, whose network learns on over the latents of the pipeline's autoencoder.

One family for all pipelines of nets/pipelines.py. The network is the module of diffusers, so that adapters of it open
there. The loss is that of diffusers' training scripts: the squared error of what the network predicts, at a random step
of the schedule for noise, data or v, and at a step drawn from the logit-normal for flows (Esser et al. 2024, sec. 3.1).
Samples are drawn by the pipeline's own class with the base's scheduler, so that they are its images; edits go along the
straight path (nets/foreign.py).

`afresh tune FOLDER DATA` creates such runs. The text encoders stay in the folder of the base, and a run knows them by
the SHA-256 of their files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Evaluations,
    Family,
    Likelihood,
    Modules,
    PlanHints,
    Policy,
    Predict,
    Sampling,
    Space,
    UserError,
)
from afresh.core.rng import Rng
from afresh.core.solver_progress import step
from afresh.engine.nets.foreign import DiffusersObjective, FolderConfig, Foreign, Prediction, answer, foreign, score
from afresh.engine.nets.pipelines import ARCHITECTURES, Architecture, View, diffusers, pipeline_of, quiet, split
from afresh.engine.sampling.edit import edit_under, stateless
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.ode import EVALUATIONS

CAPTION = "caption"
TRAINED_GUIDANCE = 1.0  # of networks that have guidance as an input, as diffusers' guides advise for training
MOST_VALUES = 1 << 16  # of the latents that are drawn at once: 4 images of 512 pixels, 1 of 1,024
ATTENTION = (
    *("*.to_q", "*.to_k", "*.to_v", "*.to_out.0", "*.add_q_proj", "*.add_k_proj", "*.add_v_proj", "*.to_add_out"),
    "*.to_qkv_mlp_proj",
)
RATES = (1e-4, 1e-5)  # of learning, an adapter and all weights: the defaults of diffusers' training scripts
LISTS = ("transformer_blocks", "single_transformer_blocks", "down_blocks", "up_blocks")  # of layers


class TextToImageConfig(FolderConfig):
    """The configuration of a pipeline. `text`: the shapes of the parts of an embedded text; `factor`: pixels along a
    side for each cell of the latents."""

    text: dict[str, tuple[int, ...]]
    factor: int = Field(ge=1)

    @model_validator(mode="after")
    def _of_known_classes(self) -> TextToImageConfig:
        """Classes are looked up by name, and a run may come from anybody."""
        row = ARCHITECTURES.get(str(self.index.get("_class_name")))
        if row is None or self.architecture != row.network or not self.scheduler.endswith("Scheduler"):
            raise ValueError(
                f"{self.index.get('_class_name')} with {self.architecture} and {self.scheduler} is unknown"
            )
        return self

    @property
    def pipeline(self) -> str:
        """The class of the pipeline."""
        return str(self.index["_class_name"])

    @property
    def fixed_guidance(self) -> bool:
        """Whether the network was distilled for few steps and has neither guidance nor a branch for it."""
        return bool(self.index.get("is_distilled"))

    @property
    def parts(self) -> Architecture:
        return ARCHITECTURES[self.pipeline]

    @property
    def prediction(self) -> Prediction:
        return "flow" if self.parts.flow else super().prediction


class TextToImageSettings(BaseModel):
    """Options of sampling. `guidance`: how far from no text to the text, 1 for none (an input of the network where it
    has one, such as FLUX.1 dev). `solver`, and `resample`, the number of repetitions of each step, are those of edits
    alone, as samples are drawn by the base's scheduler.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(30, ge=1, le=1000)
    guidance: float = Field(5.0, ge=1, le=100)
    solver: Literal["euler", "heun", "ab2", "dpmpp"] = "euler"
    resample: int = Field(4, ge=1, le=100)


# --------------------------------------------------------------------------- networks


class Prompted(Foreign):
    """The velocity of a network that is told a text; `null` is the embedding of no text."""

    null: Tensor

    def __init__(self, config: TextToImageConfig, conds: CondSpec) -> None:
        super().__init__(config, conds)
        self.config = config
        self.register_buffer("null", torch.zeros(sum(math.prod(shape) for shape in config.text.values())))

    def text(self, cond: Cond) -> dict[str, Tensor]:
        """The embedded texts (B, ...); rows without a caption have that of no text."""
        given, present = cond.parts[CAPTION], cond.present[CAPTION]
        return split(torch.where(present[:, None], given.to(self.null.dtype), self.null), self.config.text)

    def told(self, z: Tensor, time: Tensor, cond: Cond, guidance: float = TRAINED_GUIDANCE) -> Tensor:
        """The network's output for latents z at times of its scheduler, (B,), in float32."""
        side = [n * self.config.factor for n in z.shape[2:]]
        out = self.config.parts.call(self.net, z, time, self.text(cond), View(side[0], side[1], guidance))
        return out[:, : z.shape[1]].float()

    def raw(self, z: Tensor, k: Tensor, cond: Cond) -> Tensor:
        return self.told(z, k, cond)

    def velocity(self, x: Tensor, t: Tensor, cond: Cond, guidance: float) -> Tensor:
        """x - e, with an embedded guidance where the network has one."""
        return self(x, t, cond)


class PromptedFlow(Prompted):
    """The same for a network that predicts e - x on the path (1 - sigma) x + sigma e. Step k is that with the k-th
    smallest of the schedule's sigmas."""

    def __init__(self, config: TextToImageConfig, conds: CondSpec) -> None:
        super().__init__(config, conds)
        with torch.device("cpu"), quiet():
            scheduler = diffusers().FlowMatchEulerDiscreteScheduler.from_config(config.schedule)
            count = int(scheduler.config.num_train_timesteps)
            sigma = scheduler.sigmas[:count].double().flip(0).clamp(1e-12, 1 - 1e-12)
            ratio = 2 * ((1 - sigma) / sigma).log()
        self.steps = float(count)
        self.register_buffer("sigma", sigma.float(), persistent=False)
        self.register_buffer("ratio", ratio.float(), persistent=False)

    def draw_steps(self, rng: Rng, index: Tensor) -> Tensor:
        count = len(self.get_buffer("sigma"))
        u = torch.sigmoid(rng.normal("text_to_image/step", index))
        return count - 1 - (u * count).long().clamp_max(count - 1).float()

    def at(self, k: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.get_buffer("sigma")[k.long()][:, None, None, None]
        return 1 - sigma, sigma

    def raw(self, z: Tensor, k: Tensor, cond: Cond) -> Tensor:
        return self.told(z, self.get_buffer("sigma")[k.long()] * self.steps, cond)

    def velocity(self, x: Tensor, t: Tensor, cond: Cond, guidance: float) -> Tensor:
        return -self.told(x.float(), (1 - t.float()) * self.steps, cond, guidance)

    def forward(self, x: Tensor, t: Tensor, cond: Cond, clip: float | None = None) -> Tensor:
        return self.velocity(x, t, cond, TRAINED_GUIDANCE)


def prompted(modules: Modules) -> Prompted:
    """The network of `build`."""
    net = foreign(modules)
    assert isinstance(net, Prompted)
    return net


# --------------------------------------------------------------------------- sampling


def sample(
    modules: Modules,
    config: TextToImageConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: TextToImageSettings,
) -> Tensor:
    """Samples (n, *space.shape) by the base's pipeline, from rng.normal("sample/noise", index). Raises UserError for a
    negative text without guidance by it."""
    net = prompted(modules)
    if cond.negative is not None and (config.fixed_guidance or config.network.get("guidance_embeds")):
        raise UserError(
            "This base has its guidance within its network, and no branch for a negative text. Leave it out."
        )
    with quiet():
        scheduler = getattr(diffusers(), config.scheduler).from_config(config.schedule)
    pipe = pipeline_of(config.pipeline, config.index, {config.parts.place: net.net, "scheduler": scheduler})
    config.parts.fit(pipe, config.factor)
    rows = torch.arange(cond.size, device=index.device).split(max(1, MOST_VALUES // math.prod(space.shape)))
    return torch.cat([drawn(net, pipe, space, cond.select(r), rng, index[r], settings) for r in rows])


def drawn(
    net: Prompted, pipe: Any, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: TextToImageSettings
) -> Tensor:
    """`sample` for rows that are drawn together."""
    config, parts = net.config, net.config.parts
    noise = rng.normal("sample/noise", index, space.shape)
    h, w = space.shape[1:]
    text, negative = net.text(cond), net.text(cond.negative_or_null())
    request: dict[str, Any] = {**parts.options, **parts.arguments(text), **parts.guided(settings.guidance)}
    if "negative_prompt" in signature(pipe.__call__).parameters:
        request["negative_prompt"] = None  # which is embedded
    if not parts.distilled or cond.negative is not None:
        request |= {f"negative_{k}": v for k, v in parts.arguments(negative).items()}
    if parts.distilled and cond.negative is not None:
        request["true_cfg_scale"] = settings.guidance

    def follow(pipe: Any, done: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        z = values["latents"]
        step(done + 1, settings.steps, lambda: z if parts.sequence is None else parts.sequence.back(z, h, w))
        return values

    out: Tensor = pipe(
        height=h * config.factor,
        width=w * config.factor,
        num_inference_steps=settings.steps,
        latents=noise if parts.sequence is None else parts.sequence.given(noise),
        generator=[torch.Generator().manual_seed(int(n)) for n in rng.bits("sample/scheduler", index).cpu()],
        output_type="latent",
        return_dict=False,
        callback_on_step_end=follow,
        **request,
    )[0]
    return (out if parts.sequence is None else parts.sequence.result(out, h, w)).float()


def predictor(modules: Modules, guidance: float = TRAINED_GUIDANCE) -> Predict:
    """The velocity as a Predict."""
    net = prompted(modules)
    return stateless(lambda x, t, cond: net.velocity(x, t, cond, guidance))


def guided(modules: Modules, config: TextToImageConfig, settings: TextToImageSettings) -> Predict:
    """The velocity under the settings' guidance."""
    predict = predictor(modules, settings.guidance)
    return predict if config.parts.distilled or config.fixed_guidance else classifier_free(predict, settings.guidance)


def evaluations(space: Space, settings: TextToImageSettings) -> int:
    """Of the network for a sample: of both branches of guidance in every step."""
    return settings.steps * (1 if settings.guidance == 1 else 2)


def edit_evaluations(space: Space, settings: TextToImageSettings, keep: bool) -> int:
    return evaluations(space, settings) * EVALUATIONS[settings.solver] * (settings.resample if keep else 1)


# --------------------------------------------------------------------------- as a policy


def denoise(modules: Modules, config: TextToImageConfig, space: Space, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
    """What the network predicts at a random step of training, and its target, both (B, *shape)."""
    net = prompted(modules)
    return answer(
        net,
        batch.x,
        rng.normal("diffusers/noise", batch.index, space.shape),
        net.draw_steps(rng, batch.index),
        batch.cond,
    )


def policy_score(modules: Modules, config: TextToImageConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus half the squared error at one random step, summed over the latents, (B,): a term of the bound on
    log p(x | text) up to a weight of steps (Wallace et al. 2024, eq. 14)."""
    found, target = denoise(modules, config, space, batch, rng)
    return -0.5 * (found - target).square().flatten(1).sum(1)


# --------------------------------------------------------------------------- the family


def accepts(space: Space) -> str | None:
    if space.kind != "field" or len(space.shape) != 3:
        return "pipelines of diffusers make images (C, H, W); tokens go with transformer, other fields with flow"
    return None


def sizes(space: Space) -> Sequence[TextToImageConfig]:
    """Always raises UserError: the size is that of the base model."""
    raise UserError("The family text_to_image needs a base model, a pipeline of diffusers: afresh tune FOLDER DATA.")


def build(config: TextToImageConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError for other conditions than captions."""
    if set(conds) != {CAPTION}:
        raise UserError(f"The base model has captions and no other conditions, not {', '.join(conds) or 'none'}.")
    kind: Callable[[TextToImageConfig, CondSpec], Prompted] = PromptedFlow if config.parts.flow else Prompted
    return {"velocity": kind(config, conds)}


def blocks(modules: Modules) -> Sequence[nn.Module]:
    """The layers of the network."""
    named = dict(prompted(modules).net.named_children())
    return [layer for name in LISTS if isinstance(found := named.get(name), nn.ModuleList) for layer in found]


def recipe(space: Space) -> Mapping[str, Any]:
    return {"optimizer": "adamw", "betas": (0.9, 0.999), "weight_decay": 0.01, "clip": 1.0}


FAMILY = Family(
    name="text_to_image",
    accepts=accepts,
    config=TextToImageConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=lambda parameters, space: parameters // 25,
        batch=lambda examples, space: 4,
        recipe=recipe,
        blocks=blocks,
        adapted=ATTENTION,
        rates=RATES,
        tunable=("snr_gamma",),
    ),
    build=build,
    objective=DiffusersObjective,
    sampling=Sampling(TextToImageSettings, sample),
    likelihood=Likelihood(score),
    velocity=predictor,
    edit=edit_under(guided),
    evaluations=Evaluations(evaluations, edit_evaluations),
    policy=Policy(("velocity",), score=policy_score, denoise=denoise),
    made_by="tune",
    how="shapes noise step by step",
)
