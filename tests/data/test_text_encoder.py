"""Text encoders in folders: equal to the reference, independent of the batch, and refused if they are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from afresh.core import UserError
from afresh.data import text_encoder
from afresh.data.text_encoder import open_model
from afresh.engine.nets.sentence import pooled
from tests.data.tiny_encoder import CAPTIONS, tiny
from tests.heard import heard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


def reference(folder: Path, ids: Tensor, mask: Tensor) -> Tensor:
    """Hidden states by transformers."""
    net = transformers.AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    with torch.no_grad():
        out: Tensor = net(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return out


def test_hidden_states_are_those_of_transformers(folder: Path) -> None:
    model = open_model(folder)
    encodings = model.tokenizer.encode_batch(["a small red ball", "dog", "a big cat, asleep on the blue sofa."])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.ids) for e in encodings], batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(e.ids) for e in encodings])[:, None]
    expected = reference(folder, ids, mask)
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(ids, mask)[mask], expected[mask], rtol=0, atol=1e-5)
    mean = torch.stack([row[valid].mean(0) for row, valid in zip(expected, mask, strict=True)])
    texts = ["a small red ball", "dog", "a big cat, asleep on the blue sofa."]
    torch.testing.assert_close(model.vectors(texts)[0], mean, rtol=0, atol=1e-5)


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


def test_slow_encoding_warns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "PATIENCE", 0.0)
    with heard(r"Encoding 216 captions takes about 0 min"):
        open_model(folder).vectors(CAPTIONS * 18)


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
    (edited("config.json", model_type="lightglue", trust_remote_code=True), "asks to run code of its own"),
    (edited("config.json", model_type="clap", text={"trust_remote_code": True}), "asks to run code of its own"),
    (without_a_layer, "cannot be read as a text encoder.*layers.1"),
]


@pytest.mark.parametrize("damage,message", BROKEN)
def test_folders_that_are_not_text_encoders_are_refused(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(tiny(tmp_path))
    with pytest.raises(UserError, match=f"(?s){message}"):
        open_model(tmp_path)
