"""Folders of language models that transformers computes and the own decoder does not, read through transformers.

Only safetensors are opened, and no code of a folder is run. The weights are read here and given to transformers, which
knows how the tensors of older files are named and put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from afresh.core import UserError, registry
from afresh.data.text.documents import DocumentEncoder
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.causal_lm import CausalLMConfig
from afresh.engine.nets.causal_lm import LEFT_OUT, CausalLM, config_of, error_line, model_class, new_cache
from afresh.runs.formats import hf_config
from afresh.runs.formats.base import Base
from afresh.runs.formats.files import few, load_tensors, read_json
from afresh.runs.formats.huggingface import read_tokenizer, weight_files
from afresh.runs.formats.parts import check_finite
from afresh.runs.formats.peft import write_peft_adapter
from afresh.runs.formats.public import CONFIG, BaseModel, PublicWeights

CAUSAL = re.compile(r"\w*(ForCausalLM|LMHeadModel|ModelWithLMHead)|Gemma\w*ForConditionalGeneration")
LENGTHS = ("max_position_embeddings", "max_seq_len", "seq_length")  # the fields for the longest input in tokens
UNSTATED = 2048  # tokens, where no field says it
LONGEST = 1 << 22


@dataclass(frozen=True)
class WrappedBase:
    """A language model of transformers. `weights` are named as in the state of `afresh.engine.nets.causal_lm.CausalLM`,
    in the precision of the files; the other fields are those of `afresh.runs.formats.base.Base`."""

    config: CausalLMConfig
    context: int
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    source: str
    notes: tuple[str, ...] = ()
    family: ClassVar[str] = "causal_lm"


def is_wrapped(folder: Path) -> bool:
    """Whether config.json describes a causal language model that the own decoder does not compute. One that is damaged
    is none."""
    file = folder / CONFIG
    if not file.is_file() or not hf_config.is_other(file):
        return False
    saved = read_json(file)
    named = saved.get("architectures") or ["ForCausalLM"]  # old files do not say it, which transformers does
    return (
        bool(saved.get("model_type"))
        and not saved.get("is_encoder_decoder")
        and any(CAUSAL.fullmatch(str(name)) for name in named)
    )


def read(folder: Path, source: str | None = None) -> WrappedBase:
    """Read a folder that transformers saved. Raises UserError if it is incomplete or damaged, if it needs code of its
    own, or if it does not hold a causal language model."""
    saved = read_json(folder / CONFIG)
    config = own_config(folder, saved)
    kind = model_class(config)
    new_cache(config)  # raises UserError
    text = config.get_text_config()
    ids = {**(saved.get("text_config") or {}), **saved}
    tokenizer = read_tokenizer(folder, ids).with_rows(text.vocab_size, str(folder))
    net = loaded(folder, kind, config)
    weights = {k: v.detach() for k, v in net.state_dict().items()}
    stated = next((n for n in (getattr(text, name, None) for name in LENGTHS) if n), None)
    notes = [f"{config.model_type} by transformers, {sum(p.numel() for p in net.parameters()):,} parameters"]
    if stated is None:
        notes.append(f"config.json states no longest input: {UNSTATED:,} tokens are taken")
    if "auto_map" in saved:
        notes.append("the folder's own code is not run: transformers has the architecture itself")
    if any(p.dim() == 3 and "expert" in name for name, p in net.named_parameters()):
        notes.append("an adapter leaves the experts as they are: it is on the layers that all tokens pass")
    return WrappedBase(
        CausalLMConfig(model={k: v for k, v in saved.items() if k not in LEFT_OUT}),
        min(int(stated or UNSTATED), LONGEST),
        weights,
        tokenizer,
        source or str(folder),
        tuple(notes),
    )


def own_config(folder: Path, saved: Mapping[str, Any]) -> Any:
    """The configuration. Raises UserError for an architecture that only code in the folder computes, and for quantised
    weights."""
    if saved.get("quantization_config"):
        raise UserError(
            f"{folder} has quantised weights (quantization_config). Give the weights in float32, float16 or bfloat16."
        )
    try:
        return config_of(saved)
    except UserError:
        if "auto_map" not in saved:
            raise
        raise UserError(
            f"{folder} asks to run code of its own (auto_map in config.json), which is never run. Accepted are "
            "architectures that transformers has itself."
        ) from None


@torch.no_grad()
def loaded(folder: Path, kind: Any, config: Any) -> CausalLM:
    """The network with the weights of the folder. Raises UserError if they do not fit it, and if it does not compute
    what transformers computes, or attends to what follows."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors |= load_tensors(file)
    check_finite({k: v for k, v in tensors.items() if v.is_floating_point()}, str(folder))
    dtypes = {v.dtype for v in tensors.values() if v.is_floating_point()}
    try:
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=next(iter(dtypes)) if len(dtypes) == 1 else torch.float32,
            output_loading_info=True,
        )
    except Exception as e:  # a shape that differs, in the words of each architecture
        raise UserError(f"The weights of {folder} do not fit its config.json: {error_line(e)}") from None
    for key, words in (("missing_keys", "lack"), ("unexpected_keys", "have unknown")):
        if info[key]:
            raise UserError(f"The weights of {folder} {words} tensors of a {kind.__name__}: {few(sorted(info[key]))}.")
    tokens = torch.arange(8)[None] % config.get_text_config().vocab_size
    try:
        expected = model.eval()(tokens).logits.float()
        net = CausalLM(model)
        whole, begun = net(tokens, None), net(tokens[:, :-1], None)
    except UserError:
        raise
    except Exception as e:  # a model that needs pictures, sounds or other tokens says so in its own way
        raise UserError(
            f"{kind.__name__} of {folder} does not compute the next token of a text alone: {error_line(e)}. Choose "
            "another base, such as the language model that it was made from."
        ) from None
    near = (1e-3 if next(net.parameters()).dtype == torch.float32 else 0.05) * float(expected.std())
    for found, what in (
        (whole, "does not separate its hidden states from its logits"),
        (begun, "attends to the tokens that follow, so that it does not continue texts"),
    ):
        if not torch.allclose(found, expected[:, : found.shape[1]], rtol=0, atol=near):
            raise UserError(f"{kind.__name__} of {folder} {what}. Choose another base.")
    return net


def opened(folder: Path, name: str) -> BaseModel:
    return base_model_of(read(folder, name))


def base_model_of(loaded: Base | WrappedBase) -> BaseModel:
    """A language model as a base."""
    return BaseModel(
        name=loaded.source,
        family=registry.family(loaded.family),
        config=loaded.config,
        encoder=DocumentEncoder(
            tokenizer=loaded.tokenizer, context=loaded.context, conds={}, begins=loaded.tokenizer.opening is not None
        ),
        codec=None,
        weights=WithPrefix("decoder.", loaded.weights),
        context=loaded.context,
        recipe=None,
        seasoned=True,
        modality=None,
        notes=loaded.notes,
    )


@dataclass(frozen=True)
class WithPrefix(Mapping[str, Tensor]):
    """Tensors under longer names, each read when it is used."""

    prefix: str
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        if not name.startswith(self.prefix):
            raise KeyError(name)
        return self.tensors[name.removeprefix(self.prefix)]

    def __iter__(self) -> Iterator[str]:
        return (self.prefix + k for k in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


PUBLIC = PublicWeights(
    "causal_lm", "a causal language model of transformers (...ForCausalLM)", is_wrapped, opened, write_peft_adapter
)
