"""Steering runs: what is wanted rises by every method that says so, a killed run goes on to the same end, bad wishes
teach."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL

import numpy as np
import pytest
from PIL import Image

import afresh
from afresh.core import UserError, registry
from afresh.core.errors import Interrupted
from afresh.core.events import Event, listening
from afresh.engine.alignment.alignment_batches import AlignmentSource
from afresh.engine.training import checkpoint
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.align import AlignSpec, check_prompt_tokens, choose_method, start, why_steps
from afresh.verbs.resume import resume
from afresh.verbs.training_job import learn
from tests.contracts.rows import write_pictures
from tests.heard import heard
from tests.named_settings import named, with_named
from tests.warm import Warm

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat and the dog ran to the red barn where a hen had laid one egg\n"
VOWELS = "def share(texts: list[str]) -> list[float]:\n    return [sum(c in 'aeiou' for c in t) / 12 for t in texts]\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on texts and on light and dark pictures, by every family that can be steered; a reward; votes."""
    root = tmp_path_factory.mktemp("align")
    (root / "text.txt").write_text(TEXT * 60)
    (root / "pictures").mkdir()
    write_pictures(root / "pictures")
    small = {
        "transformer": ["family.width=32", "family.layers=2", "family.heads=2", "family.kv_heads=2"],
        "masked": ["family.width=32", "family.layers=2", "family.heads=2"],
        "flow": ["family.widths=[16]"],
        "gan": ["family.width=8"],
        "vae": ["family.width=8", "family.latent=4"],
    }
    for family, settings in small.items():
        words = family in ("transformer", "masked")
        argv = ["train", root / ("text.txt" if words else "pictures"), "--family", family, "--steps", "60"]
        argv += ["--out", root / family, "--no-measure", "--set", "train.batch=16"]
        argv += [a for k in ("eval", "preview", "save") for a in ("--set", f"train.{k}_every=60")]
        argv += [a for s in settings for a in ("--set", s)]
        argv += ["--data", "context=32"] if words else ["--data", "size=6"]
        assert command([str(a) for a in argv]) == 0
    (root / "vowels.py").write_text(VOWELS)
    votes = [{"a": "aeiou eia", "b": "crypt hymn", "winner": "a"}, {"a": "shy lynx", "b": "oui eau", "winner": "b"}]
    (root / "votes.jsonl").write_text("".join(json.dumps(v) + "\n" for v in votes))
    for name, value in (("light", 230), ("dark", 20), ("lighter", 250), ("darker", 5)):
        Image.fromarray(np.full((6, 6), value, np.uint8)).save(root / f"{name}.png")
    shown = [{"a": "light.png", "b": "dark.png", "winner": "a"}, {"a": "darker.png", "b": "lighter.png", "winner": "b"}]
    (root / "shown.jsonl").write_text("".join(json.dumps(v) + "\n" for v in shown))
    return root


def aligned(root: Path, family: str, out: Path, **wishes: object) -> Run:
    """A run that was steered for a few steps."""
    given: dict[str, object] = {"steps": 24, "set_train": {"batch": 16, "lr": 3e-3}, **wishes, "out": out}
    job = start(AlignSpec(root / family, **with_named(given)))
    learn(job)
    return Run.open(out)


def earned(run: Run) -> tuple[float, float]:
    """The reward on the same requests before and after."""
    seen = [row["reward"] for row in metrics_rows(run) if "diversity" in row]
    return seen[0], seen[-1]


BY_REWARD = [
    ("transformer", "grpo"),
    ("transformer", "rloo"),
    ("transformer", "reinforce"),
    ("transformer", "ppo"),
    ("transformer", "rejection"),
    ("masked", "rejection"),
    ("flow", "nft"),
    ("flow", "draft"),
    ("flow", "rejection"),
    ("gan", "draft"),
    ("vae", "draft"),
]


@pytest.mark.parametrize(("family", "method"), BY_REWARD)
def test_the_reward_rises(root: Path, tmp_path: Path, family: str, method: str) -> None:
    words = family in ("transformer", "masked")
    reward = f"{root / 'vowels.py'}:share" if words else "brightness"
    settings = {"length": 12} if words else {"steps": 4} if family == "flow" else {}
    more = {"beta": 0.01} if method in ("grpo", "rloo", "reinforce", "ppo") else {}
    train = {"batch": 16, "lr": 3e-3, "ema_half_life": 0}
    wishes = {"method": method, "reward": reward, "settings": settings, "set_align": more, "set_train": train}
    if method == "nft":  # bad samples do not push without end: more sets of more samples, at a third of the rate
        wishes |= {"set_align": {"reuse": 2}, "set_train": {**train, "batch": 32, "lr": 1e-3}, "steps": 64}
    run = aligned(root, family, tmp_path / "run", **wishes)
    before, after = earned(run)
    assert after > before + 0.02
    assert afresh.load(tmp_path / "run").sample(2, **settings).values  # it is a run like any other


@pytest.mark.parametrize(
    ("family", "cut"), [("transformer", 8), ("transformer", 0), ("masked", 0), ("flow", 0), ("vae", 0)]
)
def test_the_best_of_the_data_are_learnt(root: Path, tmp_path: Path, family: str, cut: int) -> None:
    words = family in ("transformer", "masked")
    reward = "contains:dog" if words else "brightness"
    settings = {"length": 12} if words else {"steps": 4} if family == "flow" else {}
    steps = 80 if words else 40
    wishes = {"method": "rejection", "reward": reward, "settings": settings, "prompt_tokens": cut, "steps": steps}
    wishes |= {"set_align": {"source": "data", "samples": 8, "keep": 2}}
    wishes |= {"set_train": {"batch": 16, "lr": 3e-3, "ema_half_life": 0}}
    run = aligned(root, family, tmp_path / "run", **wishes)
    before, after = earned(run)
    assert after > before + 0.02
    best = [row["best"] for row in metrics_rows(run) if "best" in row]
    assert min(best) > before  # of eight examples the best two are chosen: more than what the base draws


def test_the_data_have_no_answers_to_given_prompts(root: Path, tmp_path: Path) -> None:
    wishes = {"method": "rejection", "reward": "contains:dog", "prompts": ("the ",), "set_align": {"source": "data"}}
    with pytest.raises(UserError, match="not answers to these requests"):
        aligned(root, "transformer", tmp_path / "run", settings={"length": 12}, **wishes)


PREFERENCES = ("dpo", "ipo", "cdpo", "robust", "simpo", "kto", "sft")
# What the methods make of two scores does not depend on the family: with a flow, one of each kind.
BY_VOTES = [
    *(("transformer", method) for method in PREFERENCES),
    *(("flow", m) for m in ("dpo", "simpo", "kto", "sft")),
]


@pytest.mark.parametrize(("family", "method"), BY_VOTES)
def test_preferred_sides_gain(root: Path, tmp_path: Path, family: str, method: str) -> None:
    votes = root / ("votes.jsonl" if family == "transformer" else "shown.jsonl")
    settings = {"length": 12} if family == "transformer" else {"steps": 4}
    # A flow's score is that of one time and noise a pair: slower, and held to what was preferred.
    slow = {"steps": 60, "set_train": {"batch": 16, "lr": 1e-3}, "set_align": {"beta": 0.5, "keep": 1.0}}
    more = slow if family == "flow" else {}
    run = aligned(root, family, tmp_path / "run", method=method, preferences=votes, settings=settings, **more)
    last = [row for row in metrics_rows(run) if "win_gain" in row][-1]
    assert last["win_gain"] > last["lose_gain"]
    assert last["ordered"] > 0.8


def test_the_base_stays_as_it_was(root: Path, tmp_path: Path) -> None:
    newest = sorted((root / "gan" / "checkpoints").iterdir())[-1] / "model.safetensors"
    before = newest.read_bytes()
    aligned(root, "gan", tmp_path / "run", method="draft", reward="brightness")
    assert newest.read_bytes() == before
    assert Run.open(tmp_path / "run").record.base_model == str(root / "gan")


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_killed_run_goes_on_to_the_same_end(root: Path, tmp_path: Path, method: str, warm: Warm) -> None:
    """The reward itself kills the program, once, in the middle of a rollout."""
    (tmp_path / "reward.py").write_text(
        "import os, signal\nfrom pathlib import Path\n" + VOWELS.replace("    return", "    strike()\n    return") +
        "def strike():\n"
        "    flag = Path(__file__).with_name('calls')\n"
        "    calls = int(flag.read_text()) + 1 if flag.exists() else 1\n"
        "    flag.write_text(str(calls))\n"
        "    if calls == int(Path(__file__).with_name('when').read_text()):\n"
        "        os.kill(int(Path(__file__).with_name('pid').read_text()), signal.SIGKILL)\n"
    )  # fmt: skip
    argv = ["align", root / "transformer", "--method", method, "--reward", f"{tmp_path / 'reward.py'}:share"]
    argv += ["--length", "12", "--steps", "16", "--set", "train.batch=16", "--no-measure"]
    argv += ["--set", "train.precision=float32"]  # which another process could choose otherwise
    ends = []
    for name, when in (("whole", 0), ("killed", 8)):
        (tmp_path / "when").write_text(str(when))
        (tmp_path / "calls").unlink(missing_ok=True)
        out = tmp_path / name
        words = [*map(str, argv), "--out", str(out)]
        if when:
            process = warm.start("-m", "afresh", *words, stdout=DEVNULL, stderr=DEVNULL)
            (tmp_path / "pid").write_text(str(process.pid))
            assert process.wait() == -signal.SIGKILL
            words = ["train", "--resume", str(out), "--no-measure"]
        assert command(words) == 0
        folder = out / "checkpoints" / "000016"
        assert not checkpoint.check(folder)
        ends.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert ends[0] == ends[1]


def test_methods_that_do_not_fit_name_those_that_do(root: Path) -> None:
    with pytest.raises(UserError, match=r"Methods that do: draft.*Families that grpo works for: transformer"):
        start(AlignSpec(root / "gan", method="grpo", reward="brightness"))
    with pytest.raises(UserError, match=r"Did you mean grpo"):
        start(AlignSpec(root / "transformer", method="grop", reward="length:min=5"))


def test_it_must_be_said_what_is_wanted(root: Path) -> None:
    with pytest.raises(UserError, match=r"`reward=REWARD` or `preferences=VOTES`"):
        start(AlignSpec(root / "transformer"))
    with pytest.raises(UserError, match=r"learns from votes: give `preferences=VOTES`"):
        start(AlignSpec(root / "transformer", method="dpo", reward="length:min=5"))


def test_votes_of_another_modality_are_refused(root: Path, tmp_path: Path) -> None:
    spec = AlignSpec(root / "transformer", method="dpo", preferences=root / "shown.jsonl", out=tmp_path / "run")
    with pytest.raises(UserError, match=r"votes on images, but .* makes texts"):
        start(spec)
    spec = AlignSpec(root / "transformer", method="dpo", preferences=root / "votes.jsonl", out=tmp_path / "run")
    with pytest.raises(UserError, match=r"votes on texts, but .* makes images"):
        start(replace(spec, run=root / "flow"))
    assert not (tmp_path / "run").exists()


def test_a_wrong_reward_leaves_what_force_would_replace(root: Path, tmp_path: Path) -> None:
    kept = tmp_path / "run"
    kept.mkdir()
    (kept / "run.json").write_text("{}")
    whole = AlignSpec(root / "transformer", reward="length:min=5", out=kept, force=True)
    longer = replace(whole, settings=named(sample={"length": 31}), prompt_tokens=20, steps=0)
    for wrong, says in (
        (replace(whole, reward="lenght:5"), "no reward 'lenght:5'"),
        (replace(whole, heldout_reward="lenght:5"), "no reward 'lenght:5'"),
        (replace(whole, reward=None, preferences=root / "shown.jsonl"), "votes on images"),
        (replace(whole, settings=named(align={"bta": 1})), "there is no bta"),
        (longer, "`steps` must be a positive number"),
    ):
        with pytest.raises(UserError, match=says):
            start(wrong)
        assert (kept / "run.json").read_text() == "{}"


def test_prompts_longer_than_the_texts_are_refused(root: Path, tmp_path: Path) -> None:
    data = run_data(Run.open(root / "transformer"))
    short = replace(data, train=replace(data.train, x=data.train.x[:8]))
    with pytest.raises(UserError, match="`prompt_tokens=8` must be less than the 8 tokens"):
        check_prompt_tokens(short, AlignSpec(root / "transformer", reward="length", prompt_tokens=8))


def test_all_arguments_are_examined_before_the_output_folder(root: Path, tmp_path: Path) -> None:
    """Whoever is told to choose another folder has nothing else to correct afterwards."""
    good: dict[str, object] = {"reward": "length:min=5", "out": root / "flow"}  # a folder that holds another run
    for wrong, said in (
        ({"reward": "lenght:5"}, "Did you mean length"),
        ({"heldout_reward": "lenght:5"}, "Did you mean length"),
        ({"reward": None, "preferences": tmp_path / "none.jsonl"}, "none.jsonl"),
        ({"reward": None, "preferences": root / "shown.jsonl"}, "votes on images"),
        ({"method": "grop"}, "Did you mean grpo"),
        ({"device": "tpu"}, "tpu"),
        ({"steps": 0}, "steps"),
        ({"set_align": {"bta": 1}}, "did you mean beta"),
        ({"set_train": {"batch": "many"}}, "batch"),
        ({"set_train": {"batch": 12}}, "multiple of the group size 8"),
        ({"settings": {"lenght": 3}}, "length"),
        ({"prompt_tokens": 1000}, "prompt_tokens"),
        ({}, "already holds a run"),
    ):
        with pytest.raises(UserError, match=said):
            start(AlignSpec(root / "transformer", **with_named({**good, **wrong})))


def test_the_distance_is_reached_or_training_stops_there(root: Path, tmp_path: Path) -> None:
    """By methods that control their penalty, for images whatever the unit of the reward; others stop."""
    train = {"batch": 16, "lr": 3e-3, "ema_half_life": 0}
    for reward in ("brightness", "100*brightness"):
        wishes = {"method": "draft", "reward": reward, "distance": 0.1, "steps": 60, "set_train": train}
        rows = metrics_rows(aligned(root, "vae", tmp_path / reward, **wishes))
        last = [row["distance_from_base"] for row in rows if "diversity" in row][-1]
        assert abs(last - 0.1) < 0.025
    wishes = {"method": "rejection", "reward": f"{root / 'vowels.py'}:share", "settings": {"length": 12}}
    run = aligned(root, "transformer", tmp_path / "run", **wishes, distance=0.05, set_train=train)
    rows = [row for row in metrics_rows(run) if "diversity" in row]
    assert rows[-1]["kl"] > 0.05 and rows[-1]["step"] < 24
    chosen = json.loads((run.path / "averaged.json").read_text())
    assert chosen["metric"] == "kl" and chosen["value"] <= 0.05 and chosen["step"] == rows[-2]["step"]


def test_a_distance_and_a_penalty_are_not_both_given(root: Path, tmp_path: Path) -> None:
    good = AlignSpec(root / "transformer", reward="length:min=5", out=tmp_path / "run")
    for given, said in (
        ({"distance": 2.0, "set_align": {"beta": 0.1}}, "Give one of them"),
        ({"set_align": {"beta": 0.1, "distance": 2.0}}, "Give one of them"),
        ({"distance": 2.0, "set_align": {"distance": 2.0}}, "given twice"),
        ({"distance": -1.0}, "above 0"),
    ):
        with pytest.raises(UserError, match=said):
            start(replace(good, **with_named(given)))
    assert not (tmp_path / "run").exists()


def test_votes_that_are_guesses_are_refused_unless_wanted_anyway(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(3)
    words = TEXT.split()
    votes = [
        {
            "a": f"{i} " + " ".join(random.choice(words, 8)),
            "b": f"{i} " + " ".join(random.choice(words, 8)),
            "winner": w,
        }
        for i, w in enumerate(random.choice(["a", "b"], 80))
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(v) + "\n" for v in votes))
    argv = ["align", root / "transformer", "--method", "grpo", "--preferences", tmp_path / "votes.jsonl"]
    argv += ["--steps", "2", "--length", "8", "--set", "train.batch=8", "--out", tmp_path / "run", "--no-measure"]
    assert command([str(a) for a in argv]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no better than guessing" in said and "--set anyway=yes" in said
    assert not (tmp_path / "run").exists()
    assert command([*map(str, argv), "--set", "anyway=yes"]) == 0
    assert "no better than guessing" in " ".join(capsys.readouterr().err.split())


def test_preparing_tells_what_it_does_and_an_interrupt_leaves_a_run_that_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: AlignmentSource) -> None:
        raise KeyboardInterrupt

    spec = AlignSpec(
        root / "flow", reward="brightness", steps=4, settings=named(train={"batch": 8}), out=tmp_path / "run"
    )
    told: list[Event] = []
    with monkeypatch.context() as patch, listening(told.append):
        patch.setattr(AlignmentSource, "check", interrupted)
        with pytest.raises(Interrupted, match="before the first step of 4"):
            start(spec)
    stages = [e.text for e in told if e.code == "preparing" and e.kind == "note"]
    assert stages == ["run: drawing samples of the model as it is, and judging them ..."]
    learn(resume(tmp_path / "run"))
    assert metrics_rows(Run.open(tmp_path / "run"))[-1]["step"] == 4


def test_an_interrupt_keeps_the_run_that_force_would_replace(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root / "flow", tmp_path / "run")

    def interrupted(source: AlignmentSource) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AlignmentSource, "check", interrupted)
    spec = AlignSpec(
        root / "flow", reward="brightness", steps=2, settings=named(train={"batch": 8}), out=tmp_path / "run"
    )
    with pytest.raises(KeyboardInterrupt):
        start(replace(spec, force=True))
    assert Run.open(tmp_path / "run").record.align is None


def test_the_usual_method_follows_what_there_is(root: Path) -> None:
    def usual(family: str, **wishes: object) -> str:
        return choose_method(Run.open(root / family), AlignSpec(root / family, **wishes)).name  # type: ignore[arg-type]

    assert usual("transformer", reward="length:min=5") == "grpo"
    assert usual("transformer", preferences=root / "votes.jsonl") == "dpo"
    assert usual("gan", reward="brightness") == "draft"
    assert usual("vae", preferences=root / "shown.jsonl") == "rejection"  # by a reward model of the votes
    assert usual("flow", preferences=root / "shown.jsonl") == "rejection"


def test_a_reward_that_fails_says_for_what(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def nan(text):\n    return float('nan')\n")
    spec = AlignSpec(
        root / "transformer",
        reward=f"{tmp_path / 'bad.py'}:nan",
        steps=4,
        out=tmp_path / "run",
        settings=named(sample={"length": 12}),
    )
    with pytest.raises(UserError, match=r"bad.py:nan failed for item \d+"):
        start(spec)
    assert not (tmp_path / "run").exists()


def test_items_that_a_reward_fails_for_are_listed_and_training_goes_on(root: Path, tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("def odd(text: str) -> float:\n    return 1 / (sum(map(ord, text)) % 2)\n")
    with heard(r"some.py:odd has no value for \d+ of 64 items so far, which count as the worst"):
        aligned(
            root,
            "transformer",
            tmp_path / "run",
            reward=f"{tmp_path / 'some.py'}:odd",
            settings={"length": 12},
            steps=2,
        )
    rows = [json.loads(line) for line in (tmp_path / "run" / "reward-failures.jsonl").read_text().splitlines()]
    assert rows and all(sum(map(ord, r["item"])) % 2 == 0 and "ZeroDivisionError" in r["reason"] for r in rows)


def test_a_votes_file_that_changed_is_refused(root: Path, tmp_path: Path) -> None:
    votes = tmp_path / "votes.jsonl"
    votes.write_text((root / "votes.jsonl").read_text())
    aligned(root, "transformer", tmp_path / "run", method="dpo", preferences=votes, settings={"length": 12}, steps=2)
    votes.write_text(votes.read_text() + '{"a": "x", "b": "y", "winner": "a"}\n')
    assert command(["train", "--resume", str(tmp_path / "run"), "--no-measure"]) == 2


def test_it_is_said_why_there_are_more_steps_than_were_asked_for() -> None:
    assert why_steps(4, 4, AlignSpec(Path(), steps=2)).startswith("2 requested") and "for 4 steps" in why_steps(
        4, 4, AlignSpec(Path(), steps=2)
    )
    assert (
        why_steps(4, 4, AlignSpec(Path(), steps=4)) == "as requested"
        and why_steps(200, 4, AlignSpec(Path())) == "as no budget was given"
    )


def test_pictures_are_not_begun_with_tokens(root: Path) -> None:
    with pytest.raises(UserError, match="this model does not make texts"):
        start(AlignSpec(root / "vae", reward="brightness", prompt_tokens=1000))


def test_what_a_vae_pays_for_its_latents_is_no_divergence_from_the_reference(root: Path, tmp_path: Path) -> None:
    run = aligned(root, "vae", tmp_path / "run", method="rejection", reward="brightness", steps=8)
    rows = metrics_rows(run)
    assert not any("kl" in row for row in rows)
    learnt = [row for row in rows if "vae/kl" in row]
    assert learnt and list(learnt[0])[2:4] == ["reward", "best"]  # shown first
    looks = [row for row in rows if "diversity" in row]
    assert looks[0]["distance_from_base"] == 0 and looks[-1]["distance_from_base"] > 0
    assert all(0 <= row["data_similarity"] <= 1 and row["data_similarity_error"] >= 0 for row in looks)


def test_data_are_said_to_be_those_that_the_run_has_learnt(root: Path) -> None:
    assert run_data(Run.open(root / "transformer")).why == f"as {root / 'transformer'} has learnt it"


def test_an_adapter_alone_may_learn(root: Path, tmp_path: Path) -> None:
    reward = f"{root / 'vowels.py'}:share"
    run = aligned(root, "transformer", tmp_path / "run", reward=reward, lora=True, rank=4, settings={"length": 12})
    assert (run.path / "adapter").is_dir()
    before, after = earned(run)
    assert after > before


def test_every_method_is_one_that_some_family_has() -> None:
    for name, found in registry.aligners().items():
        having = [f for f in registry.FAMILIES if (p := registry.family(f).policy) and set(found.needs) <= set(p.has())]
        assert having, name
