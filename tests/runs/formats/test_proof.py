"""A proof passes for the files that were written, and fails for a file in which anything was changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from afresh.core import UserError
from afresh.data.text.chat import CHATML, MARKS
from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats.base import Base
from afresh.runs.formats.chat_program import rendered
from afresh.runs.formats.load import load_base
from afresh.runs.formats.proof import CHATS, LAYOUT, ROUNDING, documents, log_probabilities, prove
from afresh.runs.formats.readers import Afresh
from afresh.verbs.exporting import TEXT_FORMATS, export_base
from tests import needs
from tests.runs.formats.bases import SHAPES, TEXT, base_of, ids_of, with_template

BPE = Tokenizer.learn_bpe([TEXT], 300, extra=MARKS)
HF = replace(TEXT_FORMATS["hf"], open=Afresh)
RUN_TOGETHER = Tokenizer.learn_bpe([TEXT.replace(" ", "")], 300, extra=MARKS)


def talking() -> Base:
    base = base_of()
    more = BPE.size - base.tokenizer.size
    weights = dict(base.weights)
    for name in ("embedding.weight", "head.weight"):
        weights[name] = torch.cat([weights[name], torch.randn(more, 64, generator=torch.Generator().manual_seed(1))])
    return replace(base, weights=weights, tokenizer=replace(BPE, chat_template=CHATML))


def proved(base: Base, folder: Path, change: Callable[[Path], None] | None = None) -> dict[str, Any]:
    """The proof of a Hugging Face folder by afresh's own reader, after `change`."""
    HF.write(base, folder, "float32")
    if change is not None:
        change(folder)
    return prove(base, folder, HF, "float32", [ids_of(base)])


def edit(name: str, **fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        saved = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps({**saved, **fields}))

    return change


def other_tokenizer(folder: Path) -> None:
    """As many ids, for other texts."""
    (folder / "tokenizer.json").write_text(RUN_TOGETHER.inner.to_str())


def nudge(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.gate_proj.weight"], tensors["model.layers.1.mlp.up_proj.weight"] = (
        tensors["model.layers.1.mlp.up_proj.weight"].clone(),
        tensors["model.layers.1.mlp.gate_proj.weight"].clone(),
    )
    save_file(tensors, file)


def test_what_was_written_is_proved(tmp_path: Path) -> None:
    proof = proved(talking(), tmp_path)
    assert proof["passed"] and proof["layout"].largest == proof["rounding"].largest == 0
    assert proof["chat"] == {"conversations": 2, "same": 2, "differing": []}
    assert proof["first_token"]["same"] and not proof["independent"]
    assert proof["tokenizer"].same == proof["tokenizer"].texts == 15
    assert proof["nats_per_token"]["model"] == proof["nats_per_token"]["file"]


def test_documents_that_did_not_attend_to_one_another_are_compared_one_by_one(tmp_path: Path) -> None:
    """Other programs let a document attend to the one before it, so a window of several documents would differ."""
    whole = base_of()
    base = replace(whole, config=whole.config.model_copy(update={"apart": True}))
    end = base.tokenizer.special["end"]
    row = [end, 5, 6, 7, end, 8, 9, end, end, 10, 11]
    assert documents(row, end) == [[end, 5, 6, 7, end], [end, 8, 9, end], [end, end], [end, 10, 11]]
    assert documents([end, 5], end) == [[end, 5]] and documents([5, 6, end], end) == [[5, 6, end]]
    HF.write(base, tmp_path, "float32")
    proof = prove(base, tmp_path, HF, "float32", [row, row[1:]])
    assert proof["passed"] and proof["rounding"].largest < 1e-5 and proof["tokens"] == 10 + 9
    stored = load_base(tmp_path)
    assert not stored.config.apart
    assert (log_probabilities(base, [row])[0] - log_probabilities(stored, [row])[0]).abs().max() > 0.1, (
        "the check could not see the difference"
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (edit("config.json", rope_theta=9_000.0), "rounding"),
        (edit("config.json", rms_norm_eps=1e-3), "rounding"),
        (nudge, "rounding"),
        (other_tokenizer, "tokenizer"),
        (edit("tokenizer_config.json", chat_template=CHATML.replace("assistant", "model")), "chat"),
    ],
)
def test_any_change_is_detected(change: Callable[[Path], None], where: str, tmp_path: Path) -> None:
    proof = proved(talking(), tmp_path, change)
    assert not proof["passed"]
    if where == "rounding":
        assert not proof["rounding"].passed and not proof["tokenizer"].unexpected
    elif where == "tokenizer":
        assert proof["tokenizer"].unexpected and proof["rounding"].passed
    else:
        assert proof["chat"]["same"] < 2 and proof["chat"]["differing"] and proof["rounding"].passed


def test_a_missing_first_token_is_detected(tmp_path: Path) -> None:
    base = base_of()
    target = TEXT_FORMATS["hf"]
    target.write(base, tmp_path, "float32")
    edit("tokenizer.json", post_processor=None)(tmp_path)
    proof = prove(base, tmp_path, target, "float32", [ids_of(base)])
    assert not proof["passed"] and proof["first_token"]["opening"] == [] and proof["layout"].passed


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_is_proved_by_the_program_it_is_for(to: str, shape: str, tmp_path: Path) -> None:
    """AutoTokenizer reads every tokenizer of a Qwen2 as Qwen's, which the proof says."""
    if to == "gguf":
        needs.llama_cpp()
    base = base_of(shape)
    out, proof = export_base(base, to, tmp_path / "out", "float32", [ids_of(base)], "a test")
    assert proof.independent and 0 < proof.layout.largest < LAYOUT and proof.rounding.largest < LAYOUT
    assert proof.passed and out.name == "out"
    remarks = [n for n in proof.notes if "AutoTokenizer" in n]
    assert len(remarks) == ((to, shape) == ("hf", "qwen2"))
    assert all("Qwen2Tokenizer, which gives 1 of 14 texts other ids, such as 'na\u00efve" in n for n in remarks)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "q8_0"])
def test_rounding_is_distinguished_from_layout(precision: Any, tmp_path: Path) -> None:
    """llama.cpp also rounds activations, so the layout is compared on a float32 copy."""
    needs.llama_cpp()
    base = base_of("llama")
    _, proof = export_base(base, "gguf", tmp_path / "out", precision, [ids_of(base)], "a test")
    assert proof.passed and proof.layout.largest < LAYOUT
    assert LAYOUT < proof.rounding.largest < ROUNDING[precision]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "model.gguf", "proof.json"]


@pytest.mark.parametrize(("to", "module"), [("hf", "transformers"), ("gguf", "llama_cpp")])
def test_without_the_program_the_reader_of_afresh_is_used_and_named(
    to: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    base = talking() if to == "hf" else base_of(tokenizer="chars")
    _, proof = export_base(base, to, tmp_path / "out", "float32", [ids_of(base)], "a test")
    assert proof.passed and not proof.independent and proof.reader == "afresh's own reader"
    assert "pip install" in proof.notes[-1]
    assert proof.tokenizer.same == proof.tokenizer.texts


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("afresh.runs.formats.folder.write_json", full)
    base = base_of()
    with pytest.raises(UserError, match=r"No space left on device; .* bytes are free"):
        export_base(base, "safetensors", tmp_path / "out", "float32", [ids_of(base)], "a test")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "why"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 2 seconds"),
        ("{{ 'a' * 10**10 }}", "MemoryError"),
        ("{{ 'a' * 10**7 }}", "writes more than 1,048,576 characters"),
        ("{{ raise_exception('not today') }}", "not today"),
    ],
)
def test_a_template_that_transformers_alone_renders_without_end_is_ended(bomb: str, why: str, tmp_path: Path) -> None:
    """It can tell by the variables which program renders it."""
    pytest.importorskip("transformers")
    base = talking()
    template = f"{{% if documents is defined %}}{bomb}{{% endif %}}{CHATML}"
    TEXT_FORMATS["hf"].write(with_template(base, template), tmp_path, "float32")
    with pytest.raises(UserError, match=f"cannot be rendered by the program it is for: .*{why}"):
        rendered({"folder": str(tmp_path), "conversations": CHATS}, seconds=2)
