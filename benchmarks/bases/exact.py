"""What public weights compute here against transformers and diffusers themselves, in float32.

The models are tiny, of every architecture that the tests know, and their random weights are so large that each part
changes the result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tests.runs.formats import causal_models, models
from tests.runs.formats.opened_pipelines import GUIDANCE, STEPS, TEXT, Opened, attach_random_adapter, opened
from tests.runs.formats.tiny_pipelines import PIPELINES, saved
from torch import Tensor

from afresh.engine.families.text_to_image import prompted
from afresh.engine.nets.pipelines import quiet
from afresh.engine.training.weights import BaseWeights
from afresh.runs.base_model import open_base_model
from afresh.runs.formats.text_to_image import write_lora
from afresh.verbs.export_pipeline import drawn_by_diffusers
from benchmarks.common.results import Row

LOGS, PIXELS = 1e-4, 1e-3  # goals: nats, and pixels in [-1, 1]
SEEN = 0.01  # of pixels: by so much an adapter has to change an image at least


@torch.no_grad()
def own_logs(folder: Path, tokens: Tensor) -> Tensor:
    """Log-probabilities by the network of a run that is tuned on the folder."""
    base = open_base_model(str(folder))
    modules = base.family.build(base.config, base.encoder.space, {})
    net = BaseWeights(base.weights, None).apply(modules, 0)["decoder"]
    logs: Tensor = net(tokens, None).log_softmax(-1)
    return logs


def differences(kinds: Mapping[str, Callable[[Path], float]]) -> dict[str, float]:
    """The greatest difference of each, measured in an empty folder."""
    found = {}
    for kind, measure in kinds.items():
        with tempfile.TemporaryDirectory() as name:
            found[kind] = measure(Path(name))
        print(f"{kind}: {found[kind]:.2e}", flush=True)
    return found


def own_decoder(kind: str) -> Callable[[Path], float]:
    def measure(folder: Path) -> float:
        model, tokens = models.saved(kind, folder), models.tokens()
        return greatest(own_logs(folder, tokens), models.log_probabilities(model, tokens))

    return measure


def wrapped(kind: str) -> Callable[[Path], float]:
    def measure(folder: Path) -> float:
        model, tokens = causal_models.write_folder(folder, kind), torch.tensor([causal_models.ids_of()])
        return greatest(own_logs(folder, tokens), models.log_probabilities(model, tokens))

    return measure


def greatest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


def image(kind: str) -> Callable[[Path], float]:
    @torch.no_grad()
    def measure(folder: Path) -> float:
        model, pipe = Opened(saved(folder, kind)), opened(folder)
        return greatest(model.image(TEXT), drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE))

    return measure


def adapter(kind: str) -> Callable[[Path], float]:
    """Infinite for an adapter that diffusers opens without any effect."""

    @torch.no_grad()
    def measure(folder: Path) -> float:
        model, pipe = Opened(saved(folder / "base", kind)), opened(folder / "base")
        before = drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE)
        attach_random_adapter(prompted(model.modules))
        write_lora(folder, prompted(model.modules))
        with quiet():
            pipe.load_lora_weights(str(folder))
        after = drawn_by_diffusers(pipe, model, TEXT, STEPS, GUIDANCE)
        return greatest(model.image(TEXT), after) if greatest(after, before) > SEEN else float("inf")

    return measure


def row(title: str, what: str, peer: str, found: Mapping[str, float], most: float, goal: int) -> Row:
    """`goal`: how many have to differ by at most `most`."""
    exact = sorted(kind for kind, difference in found.items() if difference <= most)
    worst = max(found.values())
    return Row(
        f"public weights, {title}",
        what,
        f"{worst:.1e}; {len(exact)} of {len(found)}",
        peer,
        goal=f"at most {most:g} in {goal} at least",
        reached=len(exact) >= goal,
        n=", ".join(exact),
    )


def log_rows() -> list[Row]:
    own = differences({kind: own_decoder(kind) for kind in models.OF})
    other = differences({kind: wrapped(kind) for kind in causal_models.ARCHITECTURES})
    what = "greatest difference of log-probabilities, float32"
    return [
        row("the own decoder", what, "transformers", own, LOGS, len(own)),
        row("wrapped models", what, "transformers", other, LOGS, 12),
    ]


def image_rows() -> list[Row]:
    drawn = differences({kind: image(kind) for kind in PIPELINES})
    adapted = differences({kind: adapter(kind) for kind in PIPELINES})
    what = "greatest difference of pixels in [-1, 1], same noise"
    return [
        row("text to image", what, "diffusers", drawn, PIXELS, 6),
        row("text to image", f"with an adapter that diffusers opened: {what}", "diffusers", adapted, PIXELS, 6),
    ]
