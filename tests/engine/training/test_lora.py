"""Low-rank adapters: no change at the start, exact when merged, gradients in the adapter alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.engine.nets.transformer import Decoder, DecoderShape
from afresh.engine.nets.unet import UNet
from afresh.engine.training.lora import (
    Adapted,
    LoraConfig,
    adapted,
    adapter_state,
    attach,
    folded,
    load_adapter,
    merge,
    plain,
    put,
    save_adapter,
    use,
)

CONFIG = LoraConfig(rank=4, alpha=12.0)


def noisy(net: nn.Module) -> nn.Module:
    """Make every parameter random, since an adapter has no effect behind parameters that are zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p) / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else 1 + 0.1 * torch.randn_like(p))
    return net


def decoder() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    net = noisy(Decoder(DecoderShape(11, 24, 2, 4, 2, 40, 16, head_dim=8, qkv_bias=True), {}))
    tokens = torch.arange(12).view(2, 6) % 11
    return net, lambda m: m(tokens, None)


def unet() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    net = noisy(UNet(2, 1, 1, (8, 16), 1, 12, True))
    x, e = torch.randn(3, 1, 7, 7), torch.randn(3, 12)
    return net, lambda m: m(x, e)


def convolutions() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """Convolutions with groups, strides, dilation and padding."""
    net = nn.Sequential(
        nn.Conv1d(4, 8, 3, stride=2, padding=1, groups=4, padding_mode="circular"),
        nn.SiLU(),
        nn.Conv1d(8, 6, 3, dilation=2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 4, 3),
    )
    x = torch.randn(2, 4, 16)
    return noisy(net), lambda m: m(x)


NETS = [decoder, unet, convolutions]


def shaken(net: nn.Module, name: str, seed: int = 0) -> None:
    """Set B of an adapter to random numbers."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for layer in adapted(net).values():
            layer.adapter(name).b.normal_(std=0.3)


@pytest.mark.parametrize("make", NETS)
def test_at_the_start_an_adapter_changes_nothing_and_alone_learns(
    make: Callable[[], tuple[nn.Module, Callable]],
) -> None:
    net, run = make()
    before = run(net).detach()
    count = attach(net, CONFIG, Rng(0))
    assert torch.equal(run(net), before)
    run(net).square().sum().backward()
    learning = {k: p for k, p in net.named_parameters() if p.grad is not None}
    assert all(".adapters.default." in k for k in learning)
    assert sum(p.numel() for p in learning.values()) == count
    moved = {k for k, p in learning.items() if float(p.grad.abs().max()) > 0}  # type: ignore[union-attr]
    assert moved == {k for k in learning if k.endswith(".b")}  # as B is zero, A has no gradient yet


@pytest.mark.parametrize("make", NETS)
def test_merged_is_the_same_function_and_unmerged_the_same_bits(make: Callable[[], tuple[nn.Module, Callable]]) -> None:
    net, run = make()
    base = run(net).detach()
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    attach(net, CONFIG, Rng(0))
    shaken(net, "default")
    with torch.no_grad():
        apart = run(net)
        assert float((apart - base).abs().max()) > 0.1
        for layer in adapted(net).values():  # what code that takes the weight itself gets
            torch.testing.assert_close(layer.weight, layer.base.weight + layer.delta(layer.adapter("default")))
        merge(net)
        torch.testing.assert_close(run(net), apart, rtol=1e-4, atol=1e-5)
        for layer in adapted(net).values():
            layer.unmerge()
        assert torch.equal(run(net), apart)
        with folded(net):
            assert not adapted(net) and net.state_dict().keys() == weights.keys()
            torch.testing.assert_close(run(net), apart, rtol=1e-4, atol=1e-5)
        assert torch.equal(run(net), apart)
        use(net, {})
        assert torch.equal(run(net), base)
        plain(net)
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())


def test_a_fused_layer_has_a_pair_for_each_of_its_maps() -> None:
    """The change of q depends on q's own A and B alone, and its rank is the adapter's."""
    net, _ = decoder()
    attach(net, CONFIG, Rng(0))
    shaken(net, "default")
    layer = adapted(net)["blocks.0.attention.qkv"]
    assert layer.parts == (32, 16, 16) and layer.adapter("default").a.shape == (12, 24)
    delta = layer.delta(layer.adapter("default"))
    assert [int(torch.linalg.matrix_rank(d)) for d in delta.split(layer.parts)] == [4, 4, 4]
    with torch.no_grad():
        layer.adapter("default").a[4:8] = 0  # of k
    after = layer.delta(layer.adapter("default")).split(layer.parts)
    assert torch.equal(after[0], delta[:32]) and not after[1].any() and torch.equal(after[2], delta[48:])


@pytest.mark.parametrize("fused", ["qkv", "out"])
def test_a_layer_with_one_adapter_is_computed_as_the_sum_of_both(fused: str) -> None:
    """Output and gradients, and those of gradients, are those of the operations that compute several adapters."""
    net, _ = decoder()
    attach(net, CONFIG, Rng(0))
    shaken(net, "default")
    layer = adapted(net.double())[f"blocks.0.attention.{fused}"]
    adapter = layer.adapter("default")
    x = torch.randn(2, 5, adapter.a.shape[1], dtype=torch.float64, requires_grad=True)

    def by_parts() -> Tensor:
        return layer.base(x) + adapter.scale * layer.change(adapter, x)

    found = []
    for y in (layer(x), by_parts()):
        grads = torch.autograd.grad(y.sin().sum(), (x, adapter.a, adapter.b), create_graph=True)
        (second,) = torch.autograd.grad(grads[0].square().sum(), adapter.b)
        found.append((y, *grads, second))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)
    assert len(layer.parts) == (3 if fused == "qkv" else 1)


def test_embeddings_heads_norms_first_and_last_layers_are_left_alone() -> None:
    net, _ = decoder()
    attach(net, CONFIG, Rng(0))
    layers = ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")
    assert set(adapted(net)) == {f"blocks.{i}.{k}" for i in range(2) for k in layers}
    net, _ = unet()
    attach(net, CONFIG, Rng(0))
    assert not {"first", "last"} & set(adapted(net)) and "middle.conv1" in adapted(net)


def test_targets_by_name() -> None:
    net, _ = decoder()
    attach(net, LoraConfig(rank=2, targets=("*.qkv", "head")), Rng(0))
    assert set(adapted(net)) == {"blocks.0.attention.qkv", "blocks.1.attention.qkv", "head"}
    with pytest.raises(UserError, match=r"matches q_proj.*blocks\.0\.attention\.qkv"):
        attach(net, LoraConfig(targets=("q_proj",)), Rng(0), "other")


def test_several_adapters_are_switched_and_mixed_by_weight() -> None:
    """With the same A, the change is linear in B, so a mixture of adapters is the mixture of their changes."""
    net = nn.Sequential(nn.Linear(5, 4))
    x = torch.randn(3, 5)
    base = net(x).detach()
    for i, name in enumerate(("calm", "loud")):
        attach(net, CONFIG, Rng(i), name)
        shaken(net, name, i)
    with torch.no_grad():
        use(net, {"calm": 1.0})
        calm = net(x) - base
        use(net, {"loud": 1.0})
        loud = net(x) - base
        use(net, {"calm": 0.25, "loud": -2.0})
        torch.testing.assert_close(net(x) - base, 0.25 * calm - 2 * loud)
        merge(net)
        use(net, {"loud": 1.0})  # switched while merged
        torch.testing.assert_close(net(x) - base, loud)
        for layer in adapted(net).values():
            layer.unmerge()
        use(net, {})
        assert torch.equal(net(x), base)
    with pytest.raises(UserError, match=r"No adapter quiet\. Known: calm, loud"):
        use(net, {"quiet": 1.0})
    with pytest.raises(UserError, match="already"):
        attach(net, CONFIG, Rng(0), "calm")


def test_only_the_newest_of_several_learns() -> None:
    net = nn.Sequential(nn.Linear(5, 4))
    attach(net, CONFIG, Rng(0), "old")
    attach(net, CONFIG, Rng(0), "new")
    assert {k for k, p in net.named_parameters() if p.requires_grad} == {"0.adapters.new.a", "0.adapters.new.b"}


def test_the_start_depends_on_seed_and_name_alone() -> None:
    one, two, three = (nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4)) for _ in range(3))
    for net, seed in ((one, 3), (two, 3), (three, 4)):
        torch.manual_seed(seed + int(torch.randint(9, ())))
        attach(net, CONFIG, Rng(seed))
    a, b, c = (adapter_state(n)["1.a"] for n in (one, two, three))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert float(a.abs().max()) <= 4**-0.5 and float(a.std()) == pytest.approx(4**-0.5 / 3**0.5, rel=0.3)


@pytest.mark.parametrize("make", NETS)
def test_saved_and_loaded_into_another_network(make: Callable[[], tuple[nn.Module, Callable]], tmp_path: Path) -> None:
    net, run = make()
    attach(net, CONFIG, Rng(0))
    shaken(net, "default")
    save_adapter(tmp_path / "mine.safetensors", net)
    other, _ = make()
    load_adapter(tmp_path / "mine.safetensors", other, "theirs")
    assert not any(p.requires_grad for k, p in other.named_parameters() if "adapters" in k)
    torch.manual_seed(1)
    assert torch.equal(run(other), run(net))
    assert adapter_state(other, "theirs").keys() == adapter_state(net).keys()


def test_bad_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    net, run = decoder()
    before = run(net).detach()
    attach(net, CONFIG, Rng(0))
    shaken(net, "default")
    state = adapter_state(net)
    plain(net)
    cases = {
        "no layer blocks.9.mlp.down": {**state, "blocks.9.mlp.down.a": torch.zeros(4, 40)},
        "is incomplete": {k: v for k, v in state.items() if k != "blocks.0.mlp.down.b"},
        "does not fit": {**state, "blocks.0.mlp.down.b": torch.zeros(5, 4)},
        "not finite": {**state, "blocks.0.mlp.down.b": torch.full((24, 4), torch.nan)},
        "No layer": {},
    }
    for message, tensors in cases.items():
        with pytest.raises(UserError, match=message):
            put(net, tensors, "bad")
        assert not adapted(net) and torch.equal(run(net), before)
    (tmp_path / "cut").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(UserError, match="not a valid safetensors"):
        load_adapter(tmp_path / "cut", net)
    with pytest.raises(UserError, match="cannot be read"):
        load_adapter(tmp_path / "gone", net)
    with pytest.raises(UserError, match="without dots"):
        attach(net, CONFIG, Rng(0), "a.b")


def test_a_linear_map_of_low_rank_is_learnt() -> None:
    """From a zero map, an adapter of rank 2 reaches a target of rank 2."""
    torch.manual_seed(0)
    target = torch.randn(6, 2) @ torch.randn(2, 5)
    net = nn.Sequential(nn.Linear(5, 6, bias=False))
    nn.init.zeros_(net[0].weight)
    attach(net, LoraConfig(rank=2, alpha=2.0), Rng(0))
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for _ in range(400):
        loss = (net(torch.eye(5)).T - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    layer = net[0]
    assert isinstance(layer, Adapted) and not layer.base.weight.any()
    assert float(loss.detach()) < 1e-4 * float(target.square().mean())
