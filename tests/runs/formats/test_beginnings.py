"""What stands before a text is what the base's own tokenizer puts there: in scores, training, samples, vectors,
conversations and exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import afresh
from afresh.core import Batch, Cond, Item
from afresh.core.rng import Rng
from afresh.data.load import sweep
from afresh.data.text.documents import load_documents
from afresh.engine.alignment.methods.selected import as_examples
from afresh.engine.sampling.next_token import inputs_of
from afresh.engine.sampling.request import Request, encode_prompts, prompt_ids
from afresh.runs.formats.load import load_base
from afresh.runs.run import Run
from afresh.verbs.embed import embed
from afresh.verbs.likelihoods import score_items
from tests.runs.formats.beginnings import PUBLIC, write_public

pytest.importorskip("transformers", minversion="5.24")
SAID = "The cat sat on 12 mats."
NOTES = "".join(f"Note {i}: the cat sat on mat {i % 7}, and a dog ran.\n\n" for i in range(80))


class Public:
    """A base, the run that was tuned from it by so little that it computes the same, and its tokenizer."""

    def __init__(self, root: Path, name: str, chat: bool = False) -> None:
        from transformers import AutoTokenizer

        self.net: Any = write_public(root / name, name, chat)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(root / name)
        (root / "notes.txt").write_text(NOTES)
        data = root / "notes.txt"
        if chat:
            data = root / "talk.jsonl"
            data.write_text("".join(f'{{"prompt": "Where is cat {i}?", "answer": "On mat {i}."}}\n' for i in range(40)))
        settings = {"train.batch": 2}
        self.model = afresh.tune(
            root / name, data, steps=1, lr=1e-9, rank=2, settings=settings, out=root / f"{name}-run", quiet=True
        )

    @property
    def run(self) -> Run:
        return self.model.run

    def before(self, text: str) -> list[int]:
        """The default ids of a text. Without a token of beginning, the end of the text before precedes it."""
        ids = list(self.tokenizer(text)["input_ids"]) if text else [1]
        plain = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        begins = self.tokenizer("a")["input_ids"][0] == 1
        assert ids == ([1] if begins or not text else []) + plain
        return [1 if begins else 2, *plain]

    @torch.no_grad()
    def logs(self, ids: list[int]) -> Tensor:
        """Log-probabilities (T, vocab) of transformers."""
        return self.net(torch.tensor([ids])).logits[0].float().log_softmax(-1)

    def nats(self, ids: list[int], first: int = 1) -> list[float]:
        return self.logs(ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[first - 1 :, 0].tolist()


@pytest.fixture(scope="module", params=PUBLIC)
def public(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Public:
    return Public(tmp_path_factory.mktemp("public"), request.param)


def token_scores(run: Run, text: str, **asked: Any) -> list[float]:
    (item,) = score_items(run, [Item(text)], Request(logprobs=True, **asked), end=False).items
    assert item.tokens is not None
    return [t.logprob for t in item.tokens]


def test_scores_are_those_of_transformers_and_its_tokenizer(public: Public) -> None:
    assert token_scores(public.run, SAID) == pytest.approx(public.nats(public.before(SAID)), abs=1e-4)
    both = [*public.before("The"), *public.tokenizer(" dog", add_special_tokens=False)["input_ids"]]
    first = len(public.before("The"))
    assert token_scores(public.run, " dog", prompt="The") == pytest.approx(public.nats(both, first), abs=1e-4)


def test_the_loss_of_training_is_that_of_the_same_beginning(public: Public) -> None:
    """Of a document that fits in a window, its end included."""
    run = public.run
    examples = run.encoder.encode([Item(SAID)])
    (batch,) = sweep(examples, run.space, 8)
    objective = run.family.objective(run.config, run.space)
    total, weight, _ = objective.loss(run.modules, batch, "model", 0, Rng(0), {})
    nats = public.nats([*public.before(SAID), 2])
    assert int(weight) == len(nats) and float(total) == pytest.approx(-sum(nats), abs=1e-3)


@pytest.mark.parametrize("prompt", [None, "The cat"])
def test_samples_follow_the_same_beginning(prompt: str | None, public: Public) -> None:
    ids = public.before(prompt or "")
    begun = len(ids)
    never = [i for i in set(public.run.space.special.values()) if i != 2]
    for _ in range(6):
        ids.append(int(public.logs(ids)[-1].index_fill(0, torch.tensor(never), -torch.inf).argmax()))
        if ids[-1] == 2:
            break
    drawn = public.model.sample(1, prompt=prompt, temperature=0.0, length=6).values[0]
    assert drawn == public.run.encoder.decode(torch.tensor(ids[begun:]))[0]


def test_token_ids_have_their_beginning_once(public: Public) -> None:
    begun = list(public.tokenizer(SAID)["input_ids"])
    plain = list(public.tokenizer(SAID, add_special_tokens=False)["input_ids"])
    texts = []
    for ids in (begun, plain):
        prompt: Any = [tuple(ids)]  # as a server is given them
        texts.append(public.model.sample(1, prompt=prompt, temperature=0.0, length=6).values[0])
    assert texts[0] == texts[1]


def test_vectors_are_of_the_same_beginning(public: Public) -> None:
    with torch.no_grad():
        states = public.net.model if hasattr(public.net, "model") else public.net.transformer
        hidden = states(torch.tensor([public.before(SAID)]))[0][0, 1:].mean(0)
    found = embed(public.run, [SAID]).vectors[0]
    expected = torch.nn.functional.normalize(hidden, dim=0)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)  # computed in the precision of training


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Public:
    return Public(tmp_path_factory.mktemp("llama"), "llama-3")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["hf", "safetensors", "gguf"])
def test_an_export_scores_a_text_as_the_run_does(to: str, llama: Public, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exported = llama.model.export(to, tmp_path / to)
    assert exported.proof.passed and not any("feed it" in note for note in exported.notes)
    own = token_scores(llama.run, SAID)
    base = load_base(exported.folder / "model.gguf" if to == "gguf" else exported.folder)
    assert base.first == 1
    (tmp_path / "notes.txt").write_text(NOTES)
    again = tmp_path / "again"
    tuned = afresh.tune(base.source, tmp_path / "notes.txt", steps=1, lr=1e-9, rank=2, out=again, quiet=True)
    assert token_scores(tuned.run, SAID) == pytest.approx(own, abs=1e-4)
    if to == "hf":
        ids = AutoTokenizer.from_pretrained(exported.folder)(SAID)["input_ids"]
        with torch.no_grad():
            logs = AutoModelForCausalLM.from_pretrained(exported.folder)(torch.tensor([ids])).logits[0].log_softmax(-1)
        theirs = logs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        assert theirs == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("name", ["llama-3", "gemma-3"])
def test_conversations_begin_once(name: str, tmp_path: Path) -> None:
    talk = Public(tmp_path, name, chat=True)
    said = [{"role": "user", "content": "Where is cat 3?"}]
    theirs = talk.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert theirs[:2] == [1, 3]
    ours = prompt_ids(talk.run.encoder, "Where is cat 3?", True).tolist()
    assert ours == theirs
    ids = [*theirs]
    never = [i for i in set(talk.run.space.special.values()) if i != 2]
    for _ in range(4):
        ids.append(int(talk.logs(ids)[-1].index_fill(0, torch.tensor(never), -torch.inf).argmax()))
    said_by_it = ids[len(theirs) :]
    said_by_it = said_by_it[: said_by_it.index(2)] if 2 in said_by_it else said_by_it
    drawn = talk.model.sample(1, prompt="Where is cat 3?", temperature=0.0, length=4).values[0]
    assert drawn == talk.run.encoder.decode(torch.tensor(said_by_it))[0]
    cond, _ = encode_prompts(talk.run.encoder, talk.run.space, Cond(1), "The cat", raw=True)
    assert cond.known is not None and cond.known[0].tolist() == talk.tokenizer("The cat")["input_ids"]


def test_a_base_without_a_template_has_its_beginning_in_conversations(tmp_path: Path) -> None:
    write_public(tmp_path / "base", "llama-3")
    talk = tmp_path / "talk.jsonl"
    talk.write_text("".join(f'{{"prompt": "Where is cat {i}?", "answer": "On mat {i}."}}\n' for i in range(40)))
    run = afresh.tune(tmp_path / "base", talk, steps=1, out=tmp_path / "run", quiet=True).run
    ids = prompt_ids(run.encoder, "Hello", True).tolist()
    assert ids[0] == 1 and ids.count(1) == 1
    assert run.encoder.decode(torch.tensor(ids)) == ["User:\nHello\n\nAssistant:\n"]


def test_a_run_of_an_earlier_version_keeps_what_it_had(llama: Public, tmp_path: Path) -> None:
    """Its encoder.json does not say how documents begin, which was with the end of the one before."""
    run = tmp_path / "run"
    shutil.copytree(llama.run.path / "encoder", run)
    saved = json.loads((run / "encoder.json").read_text())
    assert saved.pop("begins") is True
    (run / "encoder.json").write_text(json.dumps(saved))
    encoder = load_documents(run)
    assert encoder.space.opening is None and encoder.space.lead == (2,)


@pytest.mark.parametrize("begins", [True, False])
def test_a_rearranged_window_begins_as_a_document(begins: bool, llama: Public) -> None:
    encoder = replace(llama.run.encoder, begins=begins)  # type: ignore[type-var]
    space = encoder.space
    x = torch.tensor([[2, *range(10, 40), 2, *range(40, 50)]])
    read = inputs_of(space, Batch(x, Cond(1), torch.arange(1)))[0].tolist()
    assert [read[0], read[31]] == ([1, 1] if begins else [2, 2])
    assert [t for t in read if t > 2] == list(range(10, 49)) and x[0, 31] == 2  # the end is still predicted


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "same"), [("qwen", True), ("qwen-plain", False)])
def test_a_tokenizer_that_does_not_normalise_is_exported_as_it_is(
    kind: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AutoTokenizer reads any tokenizer of a Qwen2 with NFC, so the proof says by which class it is opened."""
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setitem(PUBLIC, kind, ("qwen2", {}, kind, {}))
    run = Public(tmp_path, kind).model
    exported = run.export("hf", tmp_path / "hf")
    assert exported.proof.passed
    read = PreTrainedTokenizerFast.from_pretrained(exported.folder)
    texts = run.run.encoder.abilities.texts
    assert texts is not None
    for text in ("cafe\u0301 12345", "The cat."):
        assert read(text)["input_ids"] == texts.tokenizer.encode(text)
    remarks = [n for n in exported.notes if "open it by PreTrainedTokenizerFast" in n]
    assert len(remarks) == (0 if same else 1)
    assert all("Qwen2Tokenizer" in n and "texts other ids" in n for n in remarks)
    assert "PreTrainedTokenizerFast.from_pretrained" in (exported.folder / "README.md").read_text()


def test_samples_of_a_policy_begin_and_end_as_in_training(llama: Public) -> None:
    space = llama.run.space
    x = torch.tensor([[9, 10, 2, 2], [11, 12, 13, 14]])
    batch = as_examples(space, x, Cond(2), torch.arange(2))
    assert batch.x.tolist() == [[1, 9, 10, 2, 2], [1, 11, 12, 13, 14]]
    assert batch.mask is not None and batch.mask.sum(1).tolist() == [3, 4]
