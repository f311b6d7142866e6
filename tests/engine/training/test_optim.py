"""Muon against the singular value decomposition, and AdamW against torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import make_optimizers
from afresh.engine.training.optim import NS, AdamW, Muon, is_matrix, orthogonalise

SHAPES = [(8, 8), (16, 48), (48, 16), (1, 9), (33, 7)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quintic(s: Tensor, steps: int = 5) -> Tensor:
    """The iteration on singular values, in float64."""
    a, b, c = NS
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("rows,columns", SHAPES)
def test_orthogonalise_keeps_the_singular_vectors_and_maps_the_values_by_the_quintic(rows: int, columns: int) -> None:
    m = normal(rows, columns, seed=3)
    u, s, vh = torch.linalg.svd(m.double(), full_matrices=False)
    expected = u @ torch.diag(quintic(s / s.norm())) @ vh
    exact = orthogonalise(m[None], dtype=torch.float64)[0].double()
    torch.testing.assert_close(exact, expected, rtol=1e-4, atol=1e-5)
    rounded = orthogonalise(m[None])[0].double()  # bfloat16: eight bits a number, over five steps
    assert float((rounded - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("rows,columns", SHAPES)
def test_singular_values_end_in_the_stated_range(rows: int, columns: int) -> None:
    """All of [0.7, 1.2] for matrices as well conditioned as these; the direction is that of U V^T."""
    u, _, vh = torch.linalg.svd(normal(rows, columns, seed=5), full_matrices=False)
    s = torch.linspace(1, 0.1, len(vh) if rows > columns else u.shape[1])
    out = orthogonalise((u @ torch.diag(s) @ vh)[None])[0]
    values = torch.linalg.svdvals(out)
    assert float(values.min()) > 0.65 and float(values.max()) < 1.25
    cosine = float((out * (u @ vh)).sum() / out.norm() / (u @ vh).norm())
    assert cosine > 0.97


@pytest.mark.parametrize("n", [1, 4, 32])
def test_an_orthogonal_matrix_keeps_its_direction_exactly(n: int) -> None:
    q, _ = torch.linalg.qr(normal(n, n, seed=7).double())
    out = orthogonalise(3.7 * q[None], dtype=torch.float64)[0].double()
    scale = float(quintic(torch.tensor(1 / math.sqrt(n), dtype=torch.float64)))
    torch.testing.assert_close(out, scale * q, rtol=1e-5, atol=1e-6)


def test_a_zero_gradient_changes_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def test_a_batch_equals_its_matrices_one_at_a_time() -> None:
    m = normal(5, 12, 20, seed=1)
    alone = torch.cat([orthogonalise(x[None]) for x in m])
    torch.testing.assert_close(orthogonalise(m), alone, rtol=0.02, atol=0.02)
    exact = torch.cat([orthogonalise(x[None], dtype=torch.float64) for x in m])
    torch.testing.assert_close(orthogonalise(m, dtype=torch.float64), exact, rtol=1e-6, atol=1e-6)


def moved(params: dict[str, Tensor], grads: dict[str, Tensor], steps: int = 3, decay: float = 0.1) -> dict[str, Tensor]:
    """Parameters after some steps of Muon on fixed gradients."""
    live = {k: nn.Parameter(v.clone()) for k, v in params.items()}
    muon = Muon(live, decay)
    for _ in range(steps):
        for k, p in live.items():
            p.grad = grads[k].clone()
        muon.step(0.02)
    return {k: p.detach() for k, p in live.items()}


def test_fused_projections_are_trained_as_separate_maps() -> None:
    width, kv = 12, 4
    q, k, v = normal(width, width, seed=1), normal(kv, width, seed=2), normal(kv, width, seed=3)
    gate, up = normal(20, width, seed=4), normal(20, width, seed=5)
    weights = {"q": q, "k": k, "v": v, "gate": gate, "up": up}
    grads = {name: normal(*w.shape, seed=10 + i) for i, (name, w) in enumerate(weights.items())}
    apart = moved(weights, grads)

    def join(d: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "a.qkv.weight": torch.cat([d["q"], d["k"], d["v"]]),
            "a.gate_up.weight": torch.cat([d["gate"], d["up"]]),
        }

    fused = moved(join(weights), join(grads))
    for name, value in join(apart).items():
        torch.testing.assert_close(fused[name], value, rtol=0, atol=1e-3)  # bfloat16 inside, steps of 0.02


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 4, 3), (4, 6, 1, 1)])
def test_convolutions_are_trained_as_matrices_in_any_memory_layout(shape: tuple[int, ...]) -> None:
    w, g = normal(*shape, seed=1), normal(*shape, seed=2)
    expected = moved({"w": w.flatten(1)}, {"w": g.flatten(1)})["w"].view(shape)
    assert torch.equal(moved({"w": w}, {"w": g})["w"], expected)
    if len(shape) == 4:
        form = torch.channels_last
        last = moved({"w": w.to(memory_format=form)}, {"w": g.to(memory_format=form)})["w"]
        assert last.is_contiguous(memory_format=form)
        torch.testing.assert_close(last, expected, rtol=0, atol=1e-6)


def test_a_step_of_muon_is_nesterov_momentum_made_orthogonal_and_scaled() -> None:
    w, grads = normal(10, 4, seed=1), [normal(10, 4, seed=s) for s in (2, 3)]
    p = nn.Parameter(w.clone())
    muon = Muon({"w": p}, decay=0.1, momentum=0.9)
    buffer, expected = torch.zeros_like(w), w.clone()
    for g in grads:
        p.grad = g.clone()
        muon.step(0.02)
        buffer = 0.9 * buffer + 0.1 * g
        update = orthogonalise((0.1 * g + 0.9 * buffer)[None])[0]
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * math.sqrt(10 / 4) * update
    torch.testing.assert_close(p.detach(), expected, rtol=0, atol=2e-4)


def test_adamw_is_torchs_adamw_with_decay_on_matrices_alone() -> None:
    shapes = {"w": (5, 3), "k": (4, 2, 3), "b": (5,), "s": ()}
    ours = {k: nn.Parameter(normal(*s, seed=i)) for i, (k, s) in enumerate(shapes.items())}
    theirs = {k: nn.Parameter(p.detach().clone()) for k, p in ours.items()}
    adamw = AdamW(ours, 0.1, (0.9, 0.95))
    groups = [
        {"params": [theirs["w"], theirs["k"]], "weight_decay": 0.1},
        {"params": [theirs["b"], theirs["s"]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    for step in range(20):
        for i, k in enumerate(shapes):
            ours[k].grad = normal(*shapes[k], seed=100 * step + i)
            theirs[k].grad = normal(*shapes[k], seed=100 * step + i)
        lr = 1e-2 * (step + 1) / 20
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
        adamw.step(lr)
    for k in shapes:
        torch.testing.assert_close(ours[k].detach(), theirs[k].detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_an_optimizer_continues_from_its_state(kind: str) -> None:
    shapes = {"w": (6, 4), "conv": (4, 3, 3, 3), "bias": (6,)}

    def fresh() -> tuple[dict[str, nn.Parameter], list[Muon | AdamW]]:
        params = {k: nn.Parameter(normal(*s, seed=i)) for i, (k, s) in enumerate(shapes.items())}
        config = TrainConfig(steps=1, batch=1, micro_batch=1, save_every=1, optimizer=kind, weight_decay=0.1)  # type: ignore[arg-type]
        return params, make_optimizers(params, config)

    def steps(params: dict[str, nn.Parameter], optimizers: list[Muon | AdamW], first: int, last: int) -> None:
        for step in range(first, last):
            for i, (k, p) in enumerate(params.items()):
                p.grad = normal(*shapes[k], seed=50 * step + i)
            for o in optimizers:
                o.step(0.01)

    through, optimizers = fresh()
    steps(through, optimizers, 0, 3)
    state = {k: v.clone() for o in optimizers for k, v in o.state().items()}
    half = {k: p.detach().clone() for k, p in through.items()}
    steps(through, optimizers, 3, 6)

    again, others = fresh()
    for k, p in again.items():
        p.data.copy_(half[k])
    for o in others:
        o.load(state)
    steps(again, others, 3, 6)
    assert all(torch.equal(again[k], through[k]) for k in shapes)
    final = {k: v for o in others for k, v in o.state().items()}
    assert all(torch.equal(v, final[k]) for o in optimizers for k, v in o.state().items())


def test_every_parameter_has_one_optimizer_and_muon_takes_hidden_matrices_alone() -> None:
    params = {
        k: nn.Parameter(torch.zeros(s))
        for k, s in {
            "decoder.blocks.0.qkv.weight": (12, 4),
            "decoder.blocks.0.norm": (4,),
            "decoder.embedding.weight": (9, 4),
            "decoder.head.weight": (9, 4),
            "net.conv.weight": (4, 4, 3, 3),
            "net.conditioning.parts.part_label.table.weight": (3, 4),
        }.items()
    }
    muon, adamw = make_optimizers(params, TrainConfig(steps=1, batch=1, micro_batch=1, save_every=1, optimizer="muon"))
    assert set(muon.params) == {"decoder.blocks.0.qkv.weight", "net.conv.weight"}
    assert set(adamw.params) == set(params) - set(muon.params)
    assert all(is_matrix(k, p) for k, p in muon.params.items())


def test_the_fused_step_gets_gradients_in_the_layout_of_their_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's operator refuses others, even if only axes of length 1 differ, as here; that of a CPU takes them."""
    fused = torch._fused_adamw_

    def strict(params: list[torch.Tensor], grads: list[torch.Tensor], *rest: object, **options: object) -> None:
        assert [g.stride() for g in grads] == [p.stride() for p in params]
        fused(params, grads, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "_fused_adamw_", strict)
    p = nn.Parameter(normal(2, 1, 100, seed=0))
    torch.bmm(normal(2, 10, 100, seed=1), p.transpose(1, 2)).sum().backward()
    assert p.grad is not None and p.grad.stride() != p.stride()
    AdamW({"p": p}, 0.0, (0.9, 0.99)).step(0.1)
