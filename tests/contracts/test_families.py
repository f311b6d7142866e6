"""The contract of families, in every space that they accept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from afresh.core import Batch, Cond, Edit, Family, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.core.solver_progress import Step, following
from afresh.data.load import Loader, sweep
from afresh.engine.training import checkpoint
from afresh.engine.training.config import TrainConfig
from tests.contracts.learners import configured, learn, trainer
from tests.contracts.rows import FAMILIES, SPACES, SPEC, FamilyRow, close, conditions, enliven, examples


def cases(able: Callable[[Family, Space], object] = lambda family, space: True) -> Callable[[Any], Any]:
    """Every family in each of its spaces, if it has the ability. The condition is the attribute `able` of a test, so
    that tests/test_docs.py can apply the contract to a family that is not in the rows."""
    every = [(row, s) for row in FAMILIES for s in row.spaces if able(row.family(SPACES[s]), SPACES[s])]
    mark = pytest.mark.parametrize("row,space", [pytest.param(r, SPACES[s], id=f"{r.title}-{s}") for r, s in every])

    def decorate(test: Any) -> Any:
        test.able = able
        return mark(test)

    return decorate


def scales(family: Family) -> tuple[float, ...]:
    """Scales of guidance: none, and another if the family supports guidance."""
    return (1.0, 2.0) if "guidance" in family.sampling.settings.model_fields else (1.0,)


every_case = cases()
every_row = pytest.mark.parametrize("row", FAMILIES, ids=lambda r: r.title)
every_scale = pytest.mark.parametrize(
    "row,space,guidance",
    [
        pytest.param(row, SPACES[s], scale, id=f"{row.title}-{s}-{scale}")
        for row in FAMILIES
        for s in row.spaces
        for scale in scales(row.family(SPACES[s]))
    ],
)
every_edit = cases(lambda family, space: family.edit is not None and not space.stream)
every_latent = cases(lambda family, space: family.latents is not None and space.kind == "field")
every_likelihood = cases(lambda family, space: family.likelihood is not None)


def built(row: FamilyRow, space: Space) -> dict[str, nn.Module]:
    family, config = configured(row, space)
    torch.manual_seed(0)
    modules = family.build(config, space, row.conds)
    enliven(modules)
    return {k: m.eval().requires_grad_(False) for k, m in modules.items()}


def drawn(
    row: FamilyRow,
    space: Space,
    modules: Mapping[str, nn.Module],
    cond: Cond,
    index: Tensor,
    seed: int = 3,
    **more: Any,
) -> Tensor:
    family, config = configured(row, space)
    if "guidance" not in family.sampling.settings.model_fields:
        assert more.pop("guidance", 1.0) == 1.0 and not family.sampling.guided
    settings = family.sampling.settings(**{**row.settings, **more})
    with torch.no_grad():
        return family.sampling.sample(modules, config, space, cond, Rng(seed), index, settings)


def same(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    """Bit-equal tensors and equal scalars."""
    if a.step != b.step or a.scalars != b.scalars or a.tensors.keys() != b.tensors.keys():
        return False
    pairs = [(a.tensors[g], b.tensors[g]) for g in a.tensors]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


# --------------------------------------------------------------------------- sampling


@every_case
def test_samples_have_the_shape_of_the_space(row: FamilyRow, space: Space) -> None:
    x = drawn(row, space, built(row, space), conditions(5), torch.arange(5))
    if space.kind == "field":
        assert x.shape == (5, *space.shape) and x.dtype == torch.float32 and bool(x.isfinite().all())
        return
    forbidden = [i for name, i in space.special.items() if not (space.stream and name == "end")]
    assert len(x) == 5 and x.dtype == torch.int64 and not torch.isin(x, torch.tensor(forbidden)).any()
    assert int(x.min()) >= 0 and int(x.max()) < space.vocab[0]
    assert x.shape[1:] == space.shape if not space.stream else x.shape[1] <= 12


@every_case
def test_a_condition_matters_only_where_it_is_present(row: FamilyRow, space: Space) -> None:
    modules, n = built(row, space), 12
    one, other = conditions(n), conditions(n + 1).select(torch.arange(1, n + 1))
    rows = torch.arange(n)
    assert torch.equal(drawn(row, space, modules, one.null(), rows), drawn(row, space, modules, other.null(), rows))
    for name in SPEC if row.conditional else ():
        full = Cond(n, one.parts, {k: torch.ones(n, dtype=torch.bool) for k in SPEC})
        changed = Cond(n, {**one.parts, name: other.parts[name]}, full.present)
        assert not torch.equal(drawn(row, space, modules, full, rows), drawn(row, space, modules, changed, rows)), name
        assert torch.equal(
            drawn(row, space, modules, full.null([name]), rows), drawn(row, space, modules, changed.null([name]), rows)
        ), name


@every_case
def test_the_loss_under_the_null_condition_does_not_depend_on_the_value(row: FamilyRow, space: Space) -> None:
    family, config = configured(row, space)
    modules, objective = built(row, space), family.objective(config, space)
    batch = Loader(examples(space), space, Rng(0)).batch(0, 8)
    other = batch.cond.select(torch.arange(7, -1, -1))
    for player in objective.players:
        losses = [
            objective.loss(modules, Batch(batch.x, cond.null(), batch.index, batch.mask), player, 0, Rng(0), {})[0]
            for cond in (batch.cond, other)
        ]
        assert torch.equal(*losses)


@every_scale
def test_a_seed_determines_the_sample(row: FamilyRow, space: Space, guidance: float) -> None:
    modules, cond, rows = built(row, space), conditions(5), torch.arange(5)
    first = drawn(row, space, modules, cond, rows, guidance=guidance)
    assert torch.equal(drawn(row, space, modules, cond, rows, guidance=guidance), first)
    assert not torch.equal(drawn(row, space, modules, cond, rows, seed=4, guidance=guidance), first)
    assert space.kind != "field" or bool(first.isfinite().all())


@every_scale
def test_a_sample_is_the_same_alone_and_in_a_batch(row: FamilyRow, space: Space, guidance: float) -> None:
    """The same noise; outputs within the tolerance of the row (float32: the sums of a matrix product depend on its
    shape)."""
    modules, n = built(row, space), 7
    cond = conditions(n)
    whole = drawn(row, space, modules, cond, torch.arange(n), guidance=guidance)
    for rows in (torch.tensor([4]), torch.tensor([6, 0, 3])):
        part = drawn(row, space, modules, cond.select(rows), rows, guidance=guidance)
        expected = whole[rows]
        if space.kind == "tokens":
            width = part.shape[1]  # rows that ended early are padded to the longest beside them
            assert bool((expected[:, width:] == space.special.get("end", -1)).all())
            expected = expected[:, :width]
        close(part, expected, row.tolerance)


# --------------------------------------------------------------------------- objective


@every_case
def test_every_module_is_trained_by_one_player(row: FamilyRow, space: Space) -> None:
    family, config = configured(row, space)
    objective = family.objective(config, space)
    moved = [m for names in objective.players.values() for m in names]
    built = family.build(config, space, row.conds)
    frozen = {k for k, m in built.items() if all(not p.requires_grad for p in m.parameters())}
    assert len(moved) == len(set(moved)) and set(built) - frozen <= set(moved) <= set(built)
    assert set(objective.averaged) <= set(moved)


@every_case
def test_the_gradient_reaches_every_parameter_of_each_player(row: FamilyRow, space: Space) -> None:
    family, config = configured(row, space)
    modules = {k: m.train().requires_grad_(True) for k, m in built(row, space).items()}
    objective = family.objective(config, space)
    batch = Loader(examples(space), space, Rng(0)).batch(0, 16)
    for player, names in objective.players.items():
        mine = {f"{m}.{k}": p for m in names for k, p in modules[m].named_parameters()}
        objective.loss(modules, batch, player, 0, Rng(0), {})[0].backward()
        idle = [
            k for k, p in mine.items() if p.grad is None or not bool(p.grad.any()) or not bool(p.grad.isfinite().all())
        ]
        assert not idle, f"{player}: {idle}"


@every_case
def test_a_loss_is_a_sum_over_examples(row: FamilyRow, space: Space) -> None:
    """So that accumulation over micro-batches of any size is exact."""
    family, config = configured(row, space)
    modules, objective = built(row, space), family.objective(config, space)
    batch = Loader(examples(space), space, Rng(0)).batch(0, 6)
    for player in objective.players:
        whole = objective.loss(modules, batch, player, 0, Rng(0), {})
        parts = [
            objective.loss(modules, batch.select(r), player, 0, Rng(0), {}) for r in torch.arange(6).split([1, 3, 2])
        ]
        assert whole[1] == sum(p[1] for p in parts)
        close(torch.stack([p[0] for p in parts]).sum(), whole[0], 1e-4)
        for name, value in whole[2].items():
            close(torch.stack([p[2][name] for p in parts]).sum(), value, 1e-4)


@every_likelihood
def test_scores_are_finite_and_independent_of_the_batch(row: FamilyRow, space: Space) -> None:
    family, config = configured(row, space)
    assert family.likelihood is not None
    modules = built(row, space)
    batch = next(sweep(examples(space), space, 5))
    with torch.no_grad():
        whole = family.likelihood.score(modules, config, space, batch, Rng(0))
        assert whole.shape == (5,) and bool(whole.isfinite().all())
        assert torch.equal(family.likelihood.score(modules, config, space, batch, Rng(0)), whole)
        close(
            family.likelihood.score(modules, config, space, batch.select(torch.tensor([3])), Rng(0)), whole[3:4], 1e-4
        )


# --------------------------------------------------------------------------- saving


@every_case
def test_weights_survive_saving(row: FamilyRow, space: Space, tmp_path: Path) -> None:
    """Weights, averages and optimisers through files, into modules that were built with another seed."""
    learner, loader = trainer(row, space), Loader(examples(space), space, Rng(0))
    learn(learner, loader, 2)
    checkpoint.save(tmp_path / "checkpoints", learner.snapshot())
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None and same(saved, learner.snapshot())
    other = trainer(row, space, seed=9)
    assert not same(other.snapshot(), learner.snapshot())
    other.restore(saved)
    assert same(other.snapshot(), learner.snapshot())
    cond, rows = conditions(4), torch.arange(4)
    assert torch.equal(drawn(row, space, learner.modules, cond, rows), drawn(row, space, other.modules, cond, rows))


@every_case
def test_resuming_equals_an_uninterrupted_run(row: FamilyRow, space: Space, tmp_path: Path) -> None:
    """Two steps, a checkpoint, a new learner, two steps: bit-equal to four steps, on one thread."""
    through = trainer(row, space)
    learn(through, Loader(examples(space), space, Rng(0)), 4)
    before = trainer(row, space)
    learn(before, Loader(examples(space), space, Rng(0)), 2)
    checkpoint.save(tmp_path / "checkpoints", before.snapshot())
    after = trainer(row, space, seed=9)
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None
    after.restore(saved)
    learn(after, Loader(examples(space), space, Rng(0)), 2)
    assert same(after.snapshot(), through.snapshot())


# --------------------------------------------------------------------------- records and refusals


@every_row
def test_configs_and_settings_survive_json_and_refuse_what_they_do_not_know(row: FamilyRow) -> None:
    family, config = configured(row)
    every = [
        config,
        family.sampling.settings(**row.settings),
        *(c for s in row.spaces for c in family.plan.sizes(SPACES[s])),
    ]
    for model in every:
        assert type(model).model_validate_json(model.model_dump_json()) == model
        assert type(model)(**model.model_dump(mode="json")) == model
    for kind in (family.config, family.sampling.settings):
        with pytest.raises(ValidationError):
            kind(**{row.unknown: 1})
    for guidance in (-1.0, math.nan, math.inf):
        with pytest.raises(ValidationError):
            family.sampling.settings(guidance=guidance)
    least = {"steps": 1, "batch": 1, "micro_batch": 1, "save_every": 1}
    assert all(TrainConfig(**{**least, **family.plan.recipe(SPACES[name])}) for name in row.spaces)


@every_case
def test_sizes_and_the_examples_they_want_increase(row: FamilyRow, space: Space) -> None:
    family = row.family(space)
    with torch.device("meta"):
        counts = [
            sum(p.numel() for m in family.build(c, space, row.conds).values() for p in m.parameters())
            for c in family.plan.sizes(space)
        ]
    if family.made_by:  # its size is another run's
        return
    assert len(counts) > 1 and counts == sorted(set(counts))
    wants = [family.plan.examples_wanted(c, space) for c in counts]
    assert wants == sorted(wants) and wants[0] > 0


@every_row
@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_taken_or_refused_with_a_reason(row: FamilyRow, name: str) -> None:
    reason = registry.family(row.name).accepts(SPACES[name])
    if any(name in r.spaces for r in (row, *FAMILIES) if r.name == row.name):  # its variants take what they are for
        assert reason is None
    else:
        assert isinstance(reason, str) and len(reason) > 20


@pytest.mark.parametrize("name", ["gan", "flow"])
def test_text_for_a_family_of_fields_is_refused_naming_what_works(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*What works here: transformer"):
        registry.bridge(registry.family(name), examples(SPACES["stream"]), SPACES["stream"])


def test_images_reach_the_transformer_through_a_codec() -> None:
    found = registry.bridge(registry.family("transformer"), examples(SPACES["plane"]), SPACES["plane"])
    assert found is not None and registry.family("transformer").accepts(found[1].target) is None
    assert registry.bridge(registry.family("flow"), examples(SPACES["plane"]), SPACES["plane"]) is None


def test_an_unknown_name_is_refused_naming_those_known() -> None:
    for ask, known in ((registry.family, registry.FAMILIES), (registry.modality, registry.own_modalities())):
        with pytest.raises(UserError) as refused:
            ask("sculpture")
        assert all(name in str(refused.value) for name in known)


# --------------------------------------------------------------------------- editing what exists


def changed(row: FamilyRow, space: Space, task: Edit) -> Tensor:
    family, config = configured(row, space)
    modules, n = built(row, space), 5
    assert task.start is not None and family.edit is not None
    settings = family.sampling.settings(**row.settings)
    return family.edit(modules, config, space, task, conditions(n), Rng(3), torch.arange(n), settings)


def existing(space: Space) -> Tensor:
    found = examples(space).x[:5]
    return found.float() if space.kind == "field" else found.long()


@every_edit
def test_an_edit_of_strength_0_changes_nothing(row: FamilyRow, space: Space) -> None:
    start = existing(space)
    assert torch.equal(changed(row, space, Edit(start, 0.0)), start)


@every_edit
def test_values_that_an_edit_keeps_are_unchanged_bit_for_bit(row: FamilyRow, space: Space) -> None:
    start = existing(space)
    keep = Rng(9).uniform("keep", torch.arange(5), tuple(start.shape[1:])) < 0.5
    x = changed(row, space, Edit(start, 1.0, keep))
    assert torch.equal(x[keep], start[keep]) and not torch.equal(x, start)


AT_MOST = 6  # evaluations of a network that nobody can end


class Left(Exception):
    """The result is no longer wanted."""


def evaluated(modules: Mapping[str, nn.Module], work: Callable[[], object], leaves: bool = False) -> tuple[int, int]:
    """How often the most used network is evaluated, at most between two steps that are told, and in all; who follows
    `leaves` at the first step. Work that tells no step ends by itself."""
    since, total = dict.fromkeys(modules, 0), dict.fromkeys(modules, 0)
    longest = 0

    def follow(step: Step) -> None:
        nonlocal since
        since = dict.fromkeys(modules, 0)
        if leaves:
            raise Left

    def count(name: str) -> Callable[..., None]:
        def counted(*_: Any) -> None:
            nonlocal longest
            since[name], total[name] = since[name] + 1, total[name] + 1
            longest = max(longest, since[name])

        return counted

    hooks = [module.register_forward_hook(count(name)) for name, module in modules.items()]
    try:
        with following(follow), suppress(Left):
            work()
    finally:
        for hook in hooks:
            hook.remove()
    return longest, max(total.values())


def works(row: FamilyRow, space: Space) -> dict[str, Callable[[Mapping[str, nn.Module]], object]]:
    """What a server lets requests ask of a family: samples, every kind of edit, codes and likelihoods."""
    family, config = configured(row, space)
    settings, cond, n = family.sampling.settings(**row.settings), conditions(5), torch.arange(5)
    out: dict[str, Callable[[Mapping[str, nn.Module]], object]] = {
        "sample": lambda m: family.sampling.sample(m, config, space, cond, Rng(3), n, settings)
    }
    if family.edit is not None and not space.stream:
        edit, start = family.edit, existing(space)
        keep = Rng(9).uniform("keep", n, tuple(start.shape[1:])) < 0.5
        tasks = {"vary": Edit(start, 0.5), "fill": Edit(start, 1.0, keep), "fill a part": Edit(start, 0.5, keep)}
        if space.kind == "field":
            steer = {"energy": lambda x: x.square().flatten(1).sum(1), "weight": 0.1}
            tasks |= {"steer": Edit(start, 0.5, **steer), "steer a sample": Edit(**steer)}
            tasks |= {"fill and steer": Edit(start, 1.0, keep, **steer)}
        for name, task in tasks.items():
            out[name] = lambda m, task=task: edit(m, config, space, task, cond, Rng(3), n, settings)
    if family.latents is not None and space.kind == "field":
        latents, x = family.latents, existing(space)
        out["code"] = lambda m: latents.encode(m, config, space, x, cond, settings)
        z = latents.encode(built(row, space), config, space, x, cond, settings)
        out["code back"] = lambda m: latents.decode(m, config, space, z, cond, settings)
    if family.likelihood is not None and family.likelihood.density is not None and space.kind == "field":
        density, batch = family.likelihood.density, Batch(existing(space), cond, n)
        out["score"] = lambda m: density(m, config, space, batch, Rng(3))
    return out


@every_case
def test_whatever_takes_long_can_be_ended_after_a_few_evaluations_and_costs_what_was_said(
    row: FamilyRow, space: Space
) -> None:
    modules, (family, _) = built(row, space), configured(row, space)
    settings, said = family.sampling.settings(**row.settings), family.evaluations
    most = {
        "sample": said.sample(space, settings),
        "vary": said.edit(space, settings, False),
        "fill": said.edit(space, settings, True),
        "steer": said.edit(space, settings, False),
        "code": said.latents(space, settings),
        "score": said.score(space),
    }
    for name, work in works(row, space).items():
        between, total = evaluated(modules, lambda work=work: work(modules))
        _, until_left = evaluated(modules, lambda work=work: work(modules), leaves=True)
        assert max(between, until_left) <= AT_MOST, name
        assert total <= most[name.split()[0]] + AT_MOST, name


@every_latent
def test_latents_are_rows_of_numbers_that_decode(row: FamilyRow, space: Space) -> None:
    family, config = configured(row, space)
    assert family.latents is not None
    modules, n = built(row, space), 4
    settings, cond = family.sampling.settings(**row.settings), conditions(n)
    x = family.sampling.sample(modules, config, space, cond, Rng(3), torch.arange(n), settings)
    z = family.latents.encode(modules, config, space, x, cond, settings)
    again = family.latents.decode(modules, config, space, z, cond, settings)
    assert z.dim() == 2 and again.shape == x.shape and bool(again.isfinite().all())


@every_latent
def test_latents_decode_between_two_requests(row: FamilyRow, space: Space) -> None:
    """At both ends as for either request alone, and between them as for neither."""
    family, config = configured(row, space)
    assert family.latents is not None
    modules, settings, one = built(row, space), family.sampling.settings(**row.settings), conditions(3)
    other = one.select(torch.tensor([1, 2, 0]))
    x = family.sampling.sample(modules, config, space, one, Rng(3), torch.arange(3), settings)
    z = family.latents.encode(modules, config, space, x, one, settings)

    def decoded(cond: Cond) -> Tensor:
        assert family.latents is not None
        return family.latents.decode(modules, config, space, z, cond, settings)

    a, b = decoded(one), decoded(other)
    way = decoded(replace(one, toward=(other, torch.tensor([0.0, 0.5, 1.0]))))
    torch.testing.assert_close(way[[0, 2]], torch.stack([a[0], b[2]]), rtol=1e-4, atol=1e-4)
    if not torch.allclose(a[1], b[1]):
        assert not torch.allclose(way[1], a[1]) and not torch.allclose(way[1], b[1])
