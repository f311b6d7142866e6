"""The peer of vae: pythae's VAE and trainer, with its Gaussian mixture sampler fitted on the latents.

`variant` mlp is pythae's default network, conv the one it ships for MNIST (28x28) or CIFAR (32x32). Training as its
README shows: AdamW at 1e-3, batches of 200 (64, the trainer's default, for conv, which sees few epochs), 16 latents.
The VAE takes no condition, so one mixture is fitted for each class; its size is the sampler's default.
"""

from __future__ import annotations

import contextlib
import tempfile
from typing import Any

import torch
from benchmarks.images.peers.protocol import Ask, Clock, Trained, serve
from torch import Tensor

LATENTS, RATE = 16, 1e-3
BATCHES = {"mlp": 200, "conv": 64}


def network(ask: Ask, shape: tuple[int, ...]) -> Any:
    from pythae.models import VAE, VAEConfig

    config = VAEConfig(input_dim=shape, latent_dim=LATENTS)
    if ask.variant == "mlp":
        return VAE(config)
    if shape[-1] == 28:
        from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST as Decoder
        from pythae.models.nn.benchmarks.mnist import Encoder_Conv_VAE_MNIST as Encoder
    else:
        from pythae.models.nn.benchmarks.cifar import Decoder_Conv_AE_CIFAR as Decoder
        from pythae.models.nn.benchmarks.cifar import Encoder_Conv_VAE_CIFAR as Encoder
    return VAE(config, encoder=Encoder(config), decoder=Decoder(config))


class Over(Exception):
    """The seconds are over."""


def fit(ask: Ask, model: Any, x: Tensor) -> tuple[int, float]:
    """Steps and seconds of pythae's own trainer on x (N, C, H, W) in [0, 1], stopped when the time is over."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Counted(BaseTrainer):
        steps = 0

        def _optimizers_step(self, model_output: Any = None) -> None:
            super()._optimizers_step(model_output)
            self.steps += 1
            if clock.over:
                raise Over

    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1_000_000,
            learning_rate=RATE,
            per_device_train_batch_size=BATCHES[ask.variant],
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": 0.05, "betas": (0.91, 0.995)},
            scheduler_cls="ReduceLROnPlateau",
            scheduler_params={"patience": 5, "factor": 0.5},
            seed=ask.seed,
        )
        trainer = Counted(model, BaseDataset(x, torch.ones(len(x))), training_config=config)
        clock = Clock(ask.seconds)
        with contextlib.suppress(Over):
            trainer.train()
    return trainer.steps, clock.gone


def train(ask: Ask, x: Tensor, y: Tensor) -> Trained:
    from pythae.samplers import GaussianMixtureSampler

    model = network(ask, tuple(x.shape[1:]))
    unit = (x + 1) / 2
    steps, seconds = fit(ask, model, unit)
    model.eval()
    samplers = {}
    for label in y.unique().tolist():
        samplers[label] = GaussianMixtureSampler(model)
        samplers[label].fit(unit[y == label])

    def draw(wanted: Tensor) -> Tensor:
        out = torch.empty(len(wanted), *x.shape[1:])
        for label in wanted.unique().tolist():
            rows = (wanted == label).cpu()
            out[rows] = samplers[label].sample(int(rows.sum())).view(-1, *x.shape[1:]).cpu() * 2 - 1
        return out

    batch, parts = BATCHES[ask.variant], next(iter(samplers.values())).n_components
    recipe = f"pythae VAE ({ask.variant}), {LATENTS} latents, AdamW {RATE:g}, batches of {batch}"
    recipe += f", a mixture of {parts} Gaussians for each class"
    return Trained(recipe, sum(p.numel() for p in model.parameters()), steps, batch, seconds, draw)


if __name__ == "__main__":
    serve(train)
