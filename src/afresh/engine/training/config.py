"""The complete configuration of a training run, created by the planner and saved in run.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from afresh.core.safe_json import MOST_STEPS

MOST_BATCH = 1 << 16  # examples; the largest batches of published runs have about as many
MOST_THREADS = 1024
Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """The settings of the training loop. Learning rates are peaks, shaped by `warmup`, `decay` and `final_lr_ratio`
    (schedule.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    steps: int = Field(ge=1, le=MOST_STEPS)
    batch: int = Field(ge=1, le=MOST_BATCH)  # examples a step, over all micro-batches
    micro_batch: int = Field(ge=1, le=MOST_BATCH)  # examples a micro-batch
    optimizer: Literal["adamw", "muon"] = "adamw"  # of matrices; everything else learns by adamw
    lr: float = Field(1e-3, gt=0)  # of AdamW
    matrix_lr: float = Field(0.02, gt=0)  # of Muon
    betas: tuple[Beta, Beta] = (0.9, 0.99)  # of AdamW
    weight_decay: float = Field(0.0, ge=0)  # decoupled, as in AdamW
    warmup: int = Field(20, ge=0, le=MOST_STEPS)  # steps from 0 to the rate
    decay: float = Field(0.6, ge=0, le=1)  # share of the steps, the last ones, in which the rate falls
    final_lr_ratio: float = Field(0.02, ge=0, le=1)  # the last rate as a share of the peak
    clip: float = Field(1.0, ge=0)  # of the gradient's norm; 0 = none
    ema_half_life: float = Field(0.0, ge=0)  # in examples; 0 = no average
    early: float = Field(0.0, ge=0, le=1)  # share of the steps after which the early weights are stored; 0 = never
    cond_dropout: float = Field(0.1, ge=0, le=1)  # share of conditions left out, so that guidance is possible
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the computation; weights are float32
    compile: bool = False  # by torch.compile
    shard: bool = False  # divide the network over the processes, if several train it (sharding.py)
    offload: bool = False  # keep the parts of a divided network in main memory, not on the device
    frozen: Literal["float32", "int8", "nf4"] = "float32"  # of the hidden layers of a base that an adapter is tuned on
    recompute: bool = False  # compute layers again for their gradients instead of keeping what they computed
    device: str = "cpu"
    threads: int = Field(1, ge=1, le=MOST_THREADS)  # of PyTorch on a CPU
    seed: int = Field(0, ge=-(1 << 63), lt=1 << 63)
    eval_every: int = Field(0, ge=0, le=MOST_STEPS)  # 0 = only at the end
    preview_every: int = Field(0, ge=0, le=MOST_STEPS)  # steps; 0 = no previews
    save_every: int = Field(ge=1, le=MOST_STEPS)  # steps
    log_every: int = Field(10, ge=1, le=MOST_STEPS)  # steps
    skip_limit: int = Field(5, ge=1)  # non-finite steps in a row before rolling back
    rollback_limit: int = Field(3, ge=0)  # returns to an older checkpoint before training gives up
    memorisation_limit: float = Field(0.1, ge=0, le=1)  # share of near copies at which training ends; 0 = never
    preserve: float = Field(0.0, ge=0)  # how strongly answers of a text-to-image base to other texts are held; 0 = not
    stop_rising: float = Field(0.03, ge=0)  # how far above its lowest the held-out loss ends training; 0 = never
