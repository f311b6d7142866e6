"""Weights of transformers give the same logits here, exports open there, and inconsistent files are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from afresh.core import UserError
from afresh.data.text.tokenizer import LARGEST_FILE
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.byte_fallback import with_bytes
from afresh.runs.formats.huggingface import write
from afresh.runs.formats.load import load_base
from tests.runs.formats.bases import TEXT, TOKENIZERS, base_of, odd_texts, with_template
from tests.runs.formats.models import (
    BPE,
    CONTEXT,
    LLAMA3,
    OF,
    VOCAB,
    build,
    log_probabilities,
    saved,
    tokens,
    transformers,
)

TOLERANCE = 1e-3  # nats, in float32, over the whole vocabulary


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    for name in OF:
        saved(name, root / name)
    return root


@pytest.fixture
def copied(folders: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders / "llama", tmp_path / "copied"))


@torch.no_grad()
def ours(base: Base) -> torch.Tensor:
    return decoder_of(base)(tokens(), None).log_softmax(-1)


@pytest.mark.parametrize("name", sorted(OF))
def test_logits_are_those_of_transformers(name: str, folders: Path) -> None:
    wanted = log_probabilities(build(name), tokens())
    base = load_base(folders / name)
    assert (ours(base) - wanted).abs().max() < TOLERANCE
    assert base.context == CONTEXT and base.tokenizer.size == base.space.vocab[0] == VOCAB
    assert wanted.std() > 1, "the check could not see a wrong layer"


@pytest.mark.parametrize("name", sorted(OF))
def test_and_back_without_code_of_ours(name: str, folders: Path, tmp_path: Path) -> None:
    write(load_base(folders / name), tmp_path, "float32")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    original = build(name)
    assert (log_probabilities(again, tokens()) - log_probabilities(original, tokens())).abs().max() < TOLERANCE
    expected = "LlamaForCausalLM" if name == "mistral" else type(original).__name__
    assert type(again).__name__ == expected


def test_shards_are_one_model(folders: Path, tmp_path: Path) -> None:
    saved("qwen3", tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    whole = load_base(folders / "qwen3").weights
    for name, tensor in load_base(tmp_path).weights.items():
        assert torch.equal(tensor, whole[name]), name
    next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
    with pytest.raises(UserError, match="lacks 1 of its"):
        load_base(tmp_path)


def test_stored_precision_is_kept(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    half = tmp_path / "half"
    half.mkdir()
    write(load_base(tmp_path), half, "bfloat16")
    assert {v.dtype for v in load_base(half).weights.values()} == {torch.bfloat16}
    assert transformers.AutoModelForCausalLM.from_pretrained(half, dtype="auto").dtype == torch.bfloat16


# --------------------------------------------------------------------------- tokenizers


def beside(folder: Path, **fields: Any) -> None:
    """tokenizer_config.json as other programs write it."""
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


END, PAD = BPE.special["end"], BPE.special["pad"]


@pytest.mark.parametrize(
    ("fields", "config", "end", "pad"),
    [
        ({"eos_token": "<end>", "pad_token": "<pad>"}, {}, END, PAD),
        ({"eos_token": {"content": "<end>", "lstrip": False}}, {"pad_token_id": None}, END, END),
        ({}, {"eos_token_id": END}, END, PAD),
        ({"eos_token": None}, {"eos_token_id": [PAD, END]}, PAD, PAD),
        ({"eos_token": "<pad>"}, {"eos_token_id": END}, PAD, PAD),
    ],
)
def test_which_token_ends_a_text(
    fields: dict[str, Any], config: dict[str, Any], end: int, pad: int, copied: Path
) -> None:
    beside(copied, **fields)
    change(copied, **config)
    tokenizer = load_base(copied).tokenizer
    assert (tokenizer.kind, tokenizer.special["end"], tokenizer.special["pad"]) == ("foreign", end, pad)
    assert tokenizer.encode("The cat <end>") == BPE.encode("The cat <end>")


def test_no_token_that_ends_a_text(copied: Path) -> None:
    beside(copied)
    change(copied, eos_token_id=None)
    with pytest.raises(UserError, match=r"the token that ends a text.*<begin>, <end>, <pad>"):
        load_base(copied)
    (copied / "tokenizer.json").write_text("{}")
    beside(copied, eos_token="<end>")
    with pytest.raises(UserError, match=r"not a tokenizer\.json"):
        load_base(copied)
    (copied / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json\. Make one"):
        load_base(copied)


def test_where_chat_templates_are_kept(copied: Path) -> None:
    beside(copied, eos_token="<end>")
    assert load_base(copied).chat_template is None
    beside(copied, eos_token="<end>", chat_template="a")
    assert load_base(copied).chat_template == "a"
    several = [{"name": "tool_use", "template": "b"}, {"name": "default", "template": "c"}]
    beside(copied, eos_token="<end>", chat_template=several)
    assert load_base(copied).chat_template == "c"
    (copied / "chat_template.jinja").write_text("d")
    assert load_base(copied).chat_template == "d"


def test_a_token_before_every_text_is_known(folders: Path) -> None:
    assert load_base(folders / "llama").first == END  # as `write_tokenizer` says


# --------------------------------------------------------------------------- what is refused


def change(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_bytes()) | fields
    file.write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "architecture 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "type 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "type 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 4.0}}, "low_freq_factor"),
        ({"rope_parameters": LLAMA3 | {"factor": 0.0}}, "not plausible"),
        ({"rope_parameters": LLAMA3 | {"high_freq_factor": 1.0}}, "not plausible"),
        ({"rope_theta": float("nan"), "rope_parameters": None}, "rope_theta"),
        ({"max_position_embeddings": 1 << 40}, "max_position_embeddings"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"model_type": "mistral"}, ""),
        ({"model_type": "mistral", "sliding_window": 64}, "sliding_window 64"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8}, "sliding_window 8"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"hidden_size": "gone"}, "hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 5}, "inconsistent sizes"),
        ({"intermediate_size": 81}, "mlp.gate_proj.weight is [80, 48], not [81, 48]"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, "not belong to this architecture: model.layers.1"),
        ({"vocab_size": BPE.size - 1}, "do not belong together"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from"),
    ],
)
def test_a_configuration_that_does_not_fit(fields: dict[str, Any], message: str, copied: Path) -> None:
    change(copied, **fields)
    if not message:
        assert load_base(copied).config.layers == 2
        return
    with pytest.raises(UserError) as error:
        load_base(copied)
    assert message in str(error.value)


def test_mistral_without_a_word_on_its_window_slides(copied: Path) -> None:
    change(copied, model_type="mistral", max_position_embeddings=8192)
    with pytest.raises(UserError, match="sliding_window 4096"):
        load_base(copied)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.norm.weight", None, "missing: model.norm.weight"),
        ("model.layers.0.extra", torch.zeros(2), "not belong to this architecture: model.layers.0.extra"),
        ("model.norm.weight", torch.zeros(47), r"model.norm.weight is \[47\], not \[48\]"),
        ("model.norm.weight", torch.full((48,), float("nan")), "not finite .*: model.norm.weight"),
        ("model.norm.weight", torch.zeros(48, dtype=torch.int8), "type I8"),
    ],
)
def test_tensors_that_do_not_fit(name: str, value: torch.Tensor | None, message: str, copied: Path) -> None:
    file = copied / "model.safetensors"
    tensors = load_file(file)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, file)
    with pytest.raises(UserError, match=message):
        load_base(copied)


def test_old_buffers_are_no_weights(copied: Path) -> None:
    file = copied / "model.safetensors"
    save_file(load_file(file) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}, file)
    assert load_base(copied).config.layers == 2


@pytest.mark.parametrize("content", [b"", b"\xff" * 7, b"\xff" * 64])
def test_weights_cut_short(content: bytes, copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="Cannot read"):
        load_base(copied)


def test_a_pickle_is_never_opened(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle"):
        load_base(copied)
    with pytest.raises(UserError, match="never opened"):
        load_base(copied / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("table", "message"),
    [({"a": "../a.safetensors"}, "not shards beside it"), ({"a": "a.bin"}, "not shards"), ({}, "no weight_map")],
)
def test_an_index_that_leads_elsewhere(table: dict[str, str], message: str, copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(UserError, match=message):
        load_base(copied)


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_base(tmp_path)
    with pytest.raises(UserError, match="is not a folder, a file, or a name"):
        load_base(str(tmp_path / "gone"))
    for text in ("[", "[" * 100_000, "\xff"):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match="Cannot read"):
            load_base(tmp_path)


# --------------------------------------------------------------------------- through transformers and back


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_chat_template_survives_transformers(kind: str, tmp_path: Path) -> None:
    """save_pretrained moves the template into chat_template.jinja."""
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    base = with_bytes(with_template(base_of(tokenizer=kind), template))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    write(base, ours, "float32")
    transformers.AutoModelForCausalLM.from_pretrained(ours).save_pretrained(theirs)
    transformers.AutoTokenizer.from_pretrained(ours).save_pretrained(theirs)
    assert "chat_template" not in json.loads((theirs / "tokenizer_config.json").read_bytes())
    again = load_base(theirs)
    assert again.chat_template == template and again.first == base.first
    assert again.tokenizer.special == base.tokenizer.special
    for text in (TEXT, *odd_texts(20)):
        assert again.tokenizer.encode(text) == base.tokenizer.encode(text)
    for name, tensor in base.weights.items():
        assert torch.equal(again.weights[name], tensor), name


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_files_that_are_too_large_are_not_read(name: str, copied: Path) -> None:
    with (copied / name).open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # of no blocks on the disk
    with pytest.raises(UserError, match=rf"{name}.* at most [\d,]+ are read"):
        load_base(copied)


def test_a_header_of_millions_of_tensors_is_not_read(copied: Path) -> None:
    each = {f"{i:06}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(150_000)}
    header = json.dumps(each).encode()
    (copied / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"its header has [\d,]+ bytes, and at most 8,388,608 are read"):
        load_base(copied)
