"""`afresh tune`: an adapter or everything, on a run, on public weights, on a family of pictures."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import afresh
from afresh.api import Model
from afresh.core import Item, UserError, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader, sweep
from afresh.data.text.documents import DocumentEncoder
from afresh.engine.training import checkpoint
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.lora import adaptable, adapter_state
from afresh.faces.cli import INTERRUPTED, USAGE
from afresh.runs.data import run_data
from afresh.runs.formats import plain
from afresh.runs.formats.peft import CONFIG, WEIGHTS, read_peft
from afresh.runs.formats.public import BaseModel
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.base_data import prepare_for
from afresh.verbs.measuring import RunEvidence
from afresh.verbs.train import default_output, start
from afresh.verbs.training_spec import TrainSpec, TuneSpec
from afresh.verbs.use_command import use_command
from afresh.verbs.verify import verify
from tests.faces.cli.conftest import Invoke, drawn, parsed
from tests.heard import heard
from tests.named_settings import with_named

STEPS = 6
# The precision is by measured speed otherwise, and a machine may be measured differently from run to run.
SMALL = ("--rank", 2, "--set", "train.batch=8", "--set", "train.precision=float32", "--no-measure")


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 small tasks: turn two words round. Two rows are of no use."""
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    draw = random.Random(2)
    words = [draw.sample(["the", "cat", "sat", "mat", "and"], 2) for _ in range(60)]
    rows: list[dict[str, Any]] = [
        {"prompt": f"{a} {b} {i}", "completion": f"{b} {a}"} for i, (a, b) in enumerate(words)
    ]
    rows += [{"prompt": "the cat", "completion": " "}, {"prompt": "the mat"}]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


@pytest.fixture(scope="session")
def tuned(texts_run: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    return made("tune", texts_run, questions, "--steps", STEPS, "--lr", 0.01, "--out", out, *SMALL)


def made(*argv: Any) -> Path:
    from afresh.faces.cli import run

    assert run([str(a) for a in argv]) == 0
    return Path(argv[argv.index("--out") + 1])


def files(run: Path) -> dict[str, bytes]:
    newest = run / "checkpoints" / checkpoint.steps_in(run / "checkpoints")[-1]
    return {f.name: f.read_bytes() for f in sorted(newest.iterdir())}


def tokens(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics_rows(Run.open(out))]


# --------------------------------------------------------------------------- an adapter on a run


def test_the_result_is_a_run_that_holds_its_base_and_an_adapter(tuned: Path, texts_run: Path) -> None:
    run, base = Run.open(tuned), Run.open(texts_run)
    assert run.record.base_model == str(texts_run) and run.record.lora is not None and run.record.lora.rank == 2
    assert run.space.records and run.space.shape == base.space.shape, "answers, and looks as far back as its base"
    kept = load_file(tuned / "base.safetensors")
    assert all(torch.equal(v, kept[f"decoder.{k}"]) for k, v in base.modules["decoder"].state_dict().items())
    learnt = load_file(tuned / "checkpoints" / "000006" / "model.safetensors")
    assert learnt and all(k.endswith((".adapters.default.a", ".adapters.default.b")) for k in learnt)
    assert sum(v.numel() for v in learnt.values()) < 0.2 * run.record.parameters
    before, after = base.modules["decoder"].state_dict(), run.modules["decoder"].state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved == {f"blocks.0.{k}.weight" for k in ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")}


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("runs/office", "office-tuned"),
        ("runs/office/", "office-tuned"),
        ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M-tuned"),
        ("models/small.Q8_0.gguf", "small.Q8_0-tuned"),
        ("runs/office-tuned/adapter", "office-tuned-tuned"),
    ],
)
def test_the_folder_is_named_after_the_base(base: str, name: str, questions: Path) -> None:
    assert default_output(TuneSpec(base, questions)).name == name
    assert default_output(TrainSpec(questions, base=base)).name == "questions"  # train --base


def test_a_model_that_has_learnt_conversations_is_talked_to(tuned: Path) -> None:
    assert use_command(Run.open(tuned)) == f"afresh chat {tuned}"


def test_it_keeps_every_promise_of_a_run(tuned: Path) -> None:
    broken = [c for c in verify(Run.open(tuned)) if c.passed is False]
    assert not broken, broken


def test_the_first_line_of_its_curve_is_what_the_base_is_worth(tuned: Path, texts_run: Path) -> None:
    run, base = Run.open(tuned), Run.open(texts_run)
    prepared = run_data(run)
    assert prepared.heldout.mask is not None
    nats, count = 0.0, 0.0
    with torch.no_grad():
        for batch in sweep(prepared.heldout, run.training_space, 8):
            loss, weight, _ = base.family.objective(base.config, base.space).loss(
                base.modules,
                batch,
                "model",
                0,
                run.base_weights and None,
                {},  # type: ignore[arg-type]
            )
            nats, count = nats + float(loss), count + float(weight)
    curve = [row["heldout_loss"] for row in metrics_rows(run) if "heldout_loss" in row]
    assert count == int(prepared.heldout.mask.sum())
    assert curve[0] == pytest.approx(nats / count, rel=0.02) and curve[-1] < 0.98 * curve[0]


def test_bits_per_byte_are_of_answers_alone(tuned: Path) -> None:
    """Nats of the answers over their bytes, nothing of the questions."""
    run = Run.open(tuned)
    prepared = run_data(run)
    found = Model(run).measure(n=2)
    scores = {m["name"]: m for m in found["metrics"]}
    answers = [text for i in prepared.heldout_items for role, text in i.turns if role == "assistant"]
    size = sum(len(a.encode()) for a in answers)
    evidence = RunEvidence(run, prepared).likelihood()
    assert evidence is not None and prepared.heldout.mask is not None
    assert int(evidence[1].sum()) == int(prepared.heldout.mask.sum()) == size + len(answers), "characters, and the ends"
    bits = float(evidence[0].sum()) / math.log(2) / size
    assert scores["bits_per_byte"]["value"] == pytest.approx(bits) and scores["bits_per_byte"]["n"] == size
    assert any("answers alone" in n for n in found["notes"])


def test_the_adapter_by_itself_is_in_pefts_format(tuned: Path, texts_run: Path) -> None:
    base, run = Run.open(texts_run), Run.open(tuned)
    net = base.modules_with_adapters()["decoder"]
    read_peft(tuned / "adapter", net)
    own = adapter_state(run.modules_with_adapters()["decoder"])
    assert all(torch.equal(v, own[k]) for k, v in adapter_state(net).items())
    x = torch.arange(8)[None] % 5
    torch.testing.assert_close(net(x, None), run.modules["decoder"](x, None), rtol=1e-4, atol=1e-4)


def test_stopped_and_gone_on_with_it_is_the_same_to_the_bit(
    tuned: Path, texts_run: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """Stopped after two steps; and killed before anything was saved."""
    from afresh.engine.training import loop

    out = tmp_path / "stopped"
    argv = ("tune", texts_run, questions, "--steps", STEPS, "--lr", 0.01, "--out", out, *SMALL)
    plain_step = loop.after_step

    def stopping(learner: Any, root: Path, hooks: Any) -> None:
        if learner.step == 2:
            hooks.interrupted = lambda: True
        plain_step(learner, root, hooks)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "after_step", stopping)
        assert invoke(*argv)[0] == INTERRUPTED
    early = tmp_path / "early"
    shutil.copytree(out, early)
    shutil.rmtree(early / "checkpoints")
    (early / "metrics.jsonl").unlink()
    for run in (out, early):
        assert invoke("train", "--resume", run, "--no-measure")[0] == 0
        assert files(run) == files(tuned) and tokens(run) == tokens(tuned)
        kept = [(d / "adapter" / WEIGHTS).read_bytes() for d in (run, tuned)]
        assert kept[0] == kept[1], "the adapter by itself is kept wherever training ends"


def test_from_python_it_is_the_same(
    tuned: Path, texts_run: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run = afresh.tune(
        texts_run,
        questions,
        rank=2,
        steps=STEPS,
        lr=0.01,
        out=tmp_path / "run",
        settings={"train.batch": 8, "train.precision": "float32"},
        quiet=True,
    )
    assert capsys.readouterr() == ("", "")
    assert files(run.path) == files(tuned) and (run.path / "adapter" / WEIGHTS).is_file()
    with pytest.raises(afresh.UserError, match="The network is that of the base model"):
        afresh.tune(texts_run, questions, steps=1, out=tmp_path / "no", settings={"family.width": 3})
    with pytest.raises(afresh.UserError, match="leave it out with `lora=False`"):
        afresh.tune(texts_run, questions, lora=False, rank=4, steps=1, out=tmp_path / "no")


def test_prompts_are_asked_and_answered(tuned: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("sample", tuned, "-n", 2, "--prompt", "the cat", "--length", 9, "--json")
    assert code == 0 and [r["prompt"] for r in drawn(printed)] == ["the cat"] * 2
    asked = drawn(printed)[0]["text"]
    code, printed, _ = invoke("sample", tuned, "-n", 1, "--prompt", "the cat", "--raw", "--length", 9, "--json")
    assert code == 0 and drawn(printed)[0]["text"] != asked
    code, printed, _ = invoke("sample", tuned, "-n", 3, "--length", 5, "--json")
    assert code == 0
    for record in drawn(printed):  # what is not asked for is asked as in training
        assert record["prompt"].startswith("User:\n") and record["prompt"].endswith("\n\nAssistant:\n")
    code, _, err = invoke("sample", tuned, "--prompt", "", "--raw")
    assert code == USAGE and "cannot begin with an empty prompt" in err


def test_a_tuned_run_may_be_tuned_again(tuned: Path, questions: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "again"
    code, printed, _ = invoke("tune", tuned, questions, "--steps", 1, "--out", out, *SMALL, "--json")
    found = parsed(printed)
    last = [r["heldout_loss"] for r in metrics_rows(Run.open(tuned)) if "heldout_loss" in r][-1]
    assert code == 0 and found["base_model"] == str(tuned)
    assert found["heldout_loss_before"] == pytest.approx(last, rel=0.02), "begins where that one ended"


def test_an_adapter_is_a_base_too(
    tuned: Path, texts_run: Path, questions: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes onto the model that it names, which is found by its name in the working directory."""
    folder, out = tmp_path / "mine", tmp_path / "again"
    shutil.copytree(tuned / "adapter", folder)
    monkeypatch.chdir(texts_run.parent)
    code, printed, _ = invoke("tune", folder, questions, "--steps", 1, "--out", out, *SMALL, "--json")
    last = [r["heldout_loss"] for r in metrics_rows(Run.open(tuned)) if "heldout_loss" in r][-1]
    found = parsed(printed)
    assert (
        code == 0
        and found["heldout_loss_before"] == pytest.approx(last, rel=0.02)
        and found["base_model"] == str(folder)
    )
    saved = json.loads((folder / CONFIG).read_text())
    for named, why in (
        ("", "does not name its model"),
        (str(folder), "which is itself an adapter"),
        (str(tmp_path / "gone"), "which cannot be read"),
    ):
        (folder / CONFIG).write_text(json.dumps(saved | {"base_model_name_or_path": named}))
        code, _, err = invoke("tune", folder, questions, "--steps", 1, "--out", tmp_path / "no", *SMALL)
        assert code == USAGE and why in err.replace("\n", " "), err


# --------------------------------------------------------------------------- what is chosen


def planned(base: Path, data: Path, out: Path, **wishes: Any) -> TrainConfig:
    """Planned and not trained."""
    return start(TuneSpec(base, data, out=out, **with_named(wishes))).run.record.train


def test_the_rate_goes_with_the_width_and_what_the_base_has_seen(
    texts_run: Path, tuned: Path, pictures_run: Path, questions: Path, digits: Path, tmp_path: Path
) -> None:
    """One over the width for an adapter; of everything 0.3 over it, and a tenth of that where the base is a tuned
    one. Of the U-Net the width is the number of inputs of most of its layers."""
    width, little = Run.open(texts_run).config.width, {"rank": 2}
    rates = [
        (texts_run, little, 1.0),
        (texts_run, {"lora": False}, 0.3),
        (tuned, little, 1.0),
        (tuned, {"lora": False}, 0.03),
    ]
    for n, (base, lora, much) in enumerate(rates):
        train = planned(base, questions, tmp_path / f"{n}", **lora, steps=20)
        assert train.lr == pytest.approx(much / width, rel=0.05) and train.optimizer == "adamw"
    assert planned(texts_run, questions, tmp_path / "by hand", **little, steps=20, set_train={"lr": 0.007}).lr == 0.007
    nets = torch.nn.ModuleDict(Run.open(pictures_run).modules)
    inputs = [layer.weight[0].numel() for layer in adaptable(nets).values()]
    found = planned(pictures_run, digits, tmp_path / "pictures", **little, steps=20).lr
    assert found == pytest.approx(1.0 / statistics.median(inputs), rel=0.05)


@pytest.mark.parametrize("steps", [6, 100, 1000])
def test_looks_cost_at_most_a_tenth_of_the_training(
    steps: int, texts_run: Path, questions: Path, tmp_path: Path
) -> None:
    """A look is a forward pass of each held-out example, of at most 64; a step is worth three of its batch."""
    job = start(TuneSpec(texts_run, questions, lora=False, steps=steps, out=tmp_path / "run"))
    train, heldout = job.run.record.train, len(job.prepared.heldout_items)
    looks = math.ceil(steps / train.eval_every)
    assert looks == 1 or looks * min(64, heldout) <= 0.1 * 3 * steps * train.batch
    assert looks <= 8 and (looks == 8) == (steps >= 100) and train.preview_every == steps
    by_hand = planned(texts_run, questions, tmp_path / "by hand", steps=steps, set_train={"eval_every": 2})
    assert by_hand.eval_every == 2


def test_without_a_budget_the_data_is_passed_three_times(texts_run: Path, questions: Path, tmp_path: Path) -> None:
    job = start(TuneSpec(texts_run, questions, lora=False, out=tmp_path / "run"))
    train = job.run.record.train
    assert train.steps == 3 * math.ceil(Loader(job.source.train, job.source.space, Rng(0)).count / train.batch)


@pytest.mark.parametrize(("seconds", "window", "batch"), [(1.0, 8, 1), (1e-4, 32, 8)])
def test_a_slow_base_is_tuned_in_small_steps(
    seconds: float,
    window: int,
    batch: int,
    texts_run: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a budget in minutes: short windows and small batches, so that there are enough steps."""
    tune = sys.modules["afresh.engine.training.plan_tuning"]
    monkeypatch.setattr(tune, "SHORT", 8)
    monkeypatch.setattr(tune, "step_seconds", lambda *given: (0.0, seconds))
    job = start(TuneSpec(texts_run, texts, lora=False, minutes=1, out=tmp_path / "run"))
    train = job.run.record.train
    assert job.source.space.shape == (window,) and train.batch == batch
    once = math.ceil(Loader(job.source.train, job.source.space, Rng(0)).count / batch)
    assert min(tune.STEPS, tune.MOST_PASSES * once) <= train.steps <= tune.MOST_PASSES * once
    by_hand = start(TuneSpec(texts_run, texts, lora=False, minutes=1, out=tmp_path / "by hand", data={"context": 16}))
    assert by_hand.source.space.shape == (16,)


def test_conversations_longer_than_a_training_window_are_counted(
    texts_run: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the base itself would look further back."""
    monkeypatch.setattr(sys.modules["afresh.verbs.train"], "WINDOW", 16)
    with heard("60 of 60 records are longer than the context of 16 tokens"):
        job = start(TuneSpec(texts_run, questions, lora=False, out=tmp_path / "run"))
    assert job.source.space.shape == (16,) and job.run.space.shape == (32,)


# --------------------------------------------------------------------------- everything; other bases


def test_full_fine_tuning_moves_everything_and_goes_on(
    texts_run: Path, questions: Path, tmp_path: Path, invoke: Invoke
) -> None:
    out = tmp_path / "full"
    argv = ("tune", texts_run, questions, "--full", "--lr", 0.003, "--steps", 4, "--set", "train.batch=8")
    code, printed, _ = invoke(*argv, "--out", out, "--no-measure", "--json")
    found = parsed(printed)
    assert code == 0 and found["heldout_loss"] < found["heldout_loss_before"] and not (out / "adapter").exists()
    before, run = load_file(out / "base.safetensors"), Run.open(out)
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["000004"], "step 0 is the base"
    disk = next(value for name, value, _ in run.record.decisions if name == "disk")
    most, after = map(float, re.findall(r"([\d.e-]+) GB", disk))
    size = sum(f.stat().st_size for f in out.rglob("*.safetensors"))
    assert 0.4 * after <= size / 1e9 <= after < most
    assert all(not torch.equal(before[f"decoder.{k}"], v) for k, v in run.modules["decoder"].state_dict().items())
    assert not [c for c in verify(run) if c.passed is False]


def test_the_weights_before_stand_in_for_a_damaged_checkpoint(
    texts_run: Path, questions: Path, tmp_path: Path, invoke: Invoke
) -> None:
    out = tmp_path / "full"
    argv = (
        "tune",
        texts_run,
        questions,
        "--full",
        "--steps",
        4,
        "--set",
        "train.batch=8",
        "--set",
        "train.save_every=2",
    )
    assert invoke(*argv, "--out", out, "--no-measure")[0] == 0
    kept = {p.parent.name for p in (out / "checkpoints").rglob("optimizer.safetensors")}
    assert kept == {"000004"} and sorted(p.name for p in (out / "checkpoints").iterdir()) == ["000002", "000004"]
    damaged = out / "checkpoints" / "000004" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with heard("has no optimiser state: it starts from zero"):
        learner = Run.open(out).learner()
    assert learner.step == 2
    assert invoke("train", "--resume", out, "--no-measure")[0] == 0


def test_public_weights_are_tuned_like_the_run_that_they_came_from(
    texts_run: Path, texts: Path, questions: Path, tmp_path: Path, invoke: Invoke
) -> None:
    """An export of a run as base: the same loss before, and the same after the same steps."""
    from afresh.verbs.exporting import base_of_run

    base, _ = base_of_run(Run.open(texts_run))
    (tmp_path / "base").mkdir()
    plain.write(base, tmp_path / "base", "float32")
    for data in (questions, texts):
        found = []
        for name in (texts_run, tmp_path / "base"):
            argv = ("tune", name, data, "--steps", 2, "--out", tmp_path / "out", "--force", *SMALL, "--json")
            code, printed, _ = invoke(*argv)
            assert code == 0
            found.append(parsed(printed))
            assert Run.open(tmp_path / "out").space.records == (data is questions)
        for key in ("heldout_loss_before", "heldout_loss"):
            assert found[0][key] == pytest.approx(found[1][key], rel=1e-5)


def test_any_family_is_tuned_by_the_same_adapter(
    pictures_run: Path, digits: Path, tmp_path: Path, invoke: Invoke
) -> None:
    out = tmp_path / "pictures"
    code, printed, _ = invoke("tune", pictures_run, digits, "--steps", 2, "--out", out, *SMALL, "--json")
    assert code == 0 and parsed(printed)["family"] == "flow"
    learnt = load_file(out / "checkpoints" / "000002" / "model.safetensors")
    assert learnt and all(".adapters.default." in k for k in learnt)
    assert (out / "adapter" / "adapter.safetensors").is_file()
    assert not [c for c in verify(Run.open(out)) if c.passed is False]
    assert invoke("sample", out, "-n", 2, "--steps", 1, "--out", tmp_path / "samples")[0] == 0


# --------------------------------------------------------------------------- source code


def test_instructions_for_a_model_of_code_are_read_as_such_and_stay_in_their_order(
    questions: Path, tmp_path: Path
) -> None:
    """Not as source code, and not rearranged for fill-in-the-middle; code is, at the base's rate or as asked."""
    fitted = registry.modality("code")
    encoder = fitted.fit([Item("def f(x):\n    return x\n", "a.py")], fitted.options())
    assert isinstance(encoder, DocumentEncoder)
    family = registry.family("transformer")
    base = BaseModel("it", family, family.config(), encoder, None, {}, 256, None, False, "code")
    found = prepare_for(base, questions)
    assert isinstance(found.encoder, DocumentEncoder) and found.encoder.records and found.encoder.fim_rate == 0
    assert found.train.mask is not None and found.train.vary is None and found.modality == "text"
    source = tmp_path / "source"
    source.mkdir()
    for i in range(30):
        (source / f"{i}.py").write_text(f"a = {i}\nb = {i * 7}\nprint(a, b)\n")
    for data, rate in (({}, 0.5), ({"fim_rate": 0.25}, 0.25), ({"fim_rate": 0}, 0.0)):
        again = prepare_for(base, source, options=data).encoder
        assert isinstance(again, DocumentEncoder) and again.fim_rate == rate
    bare = replace(base, encoder=fitted.fit([Item("x", "a.py")], fitted.options(fim_rate=0)))
    with pytest.raises(UserError, match="fim_rate=0\\.5` is not possible: the base's tokenizer has no tokens"):
        prepare_for(bare, source, options={"fim_rate": 0.5})


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--full", "--rank", 4), "--rank is of an adapter"),
        (("--rank", 0), "from 1 to 4,096"),
        (("--set", "alpha=-1"), "--set alpha positive"),
        (("--set", "targets=q_proj"), "No layer to adapt matches q_proj. Layers: decoder.blocks.0.attention.qkv"),
        (("--lr", 7), "learning rate must lie between 0 and 1"),
        (("--minutes", 1, "--steps", 1), "Give one budget"),
        (("--steps", -1), "must be a positive number"),
        (("--set", "family.width=3"), "The network is that of the base model"),
        (("--data", "tokenizer=bpe"), "the tokenizer is that of the base"),
        (("--modality", "image"), "makes texts, and"),
    ],
)
def test_bad_usage_is_refused_before_anything_is_spent(
    argv: tuple[Any, ...], why: str, texts_run: Path, questions: Path, tmp_path: Path, invoke: Invoke
) -> None:
    code, _, err = invoke("tune", texts_run, questions, "--out", tmp_path / "out", *argv)
    assert code == USAGE and why in err.replace("\n", " "), err
    assert not (tmp_path / "out").exists()


def test_bases_that_are_none(questions: Path, pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, _, err = invoke("tune", tmp_path, questions, "--out", tmp_path / "out")
    assert code == USAGE and "config.json" in err
    code, _, err = invoke("tune", pictures_run, questions, "--out", tmp_path / "out")
    assert code == USAGE and "folder of images" in err


def test_a_base_that_was_changed_is_noticed(tuned: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    raw = bytearray((run / "base.safetensors").read_bytes())
    raw[-1] ^= 1
    (run / "base.safetensors").write_bytes(raw)
    code, _, err = invoke("sample", run, "-n", 1, "--prompt", "a")
    assert code == USAGE and "base.safetensors does not match the SHA-256" in err
    assert any(c.name == "hashes" and not c.passed for c in verify(Run.open(run)))
    (run / "base.safetensors").unlink()
    code, _, err = invoke("train", "--resume", run)
    assert code == USAGE and "which this run was tuned from" in err


def test_bad_rows_are_counted_and_named(questions: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("data", questions, "--json")
    found = parsed(printed)
    assert code == 0 and found["train"] + found["heldout"] == 60
    assert [r["reason"] for r in found["refused"]] == ["'completion' is empty", "no 'completion'"]
