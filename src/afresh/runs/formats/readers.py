"""Programs that read an export of a language model: transformers, llama.cpp or, without them, afresh itself."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from afresh.data.text.chat import ChatTemplate
from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats import gguf_tokenizer
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.chat_program import rendered
from afresh.runs.formats.gguf_file import open_gguf
from afresh.runs.formats.load import load_base

Messages = Sequence[Mapping[str, str]]
Said = tuple[str, list[int]]  # a conversation rendered up to the answer, and its ids


def said_in(tokenizer: Tokenizer, conversations: Sequence[Messages]) -> list[Said]:
    """Conversations in the chat template of a tokenizer, as afresh renders them."""
    template = ChatTemplate(tokenizer)
    every = [tuple((m["role"], m["content"]) for m in messages) for messages in conversations]
    encoded = template.encode(every, [""] * len(every))
    return [(template.render(turns, True), ids.tolist()) for turns, (ids, _) in zip(every, encoded, strict=True)]


class Reader(Protocol):
    """A program that has opened an export. `exact`: it computes in float32 with the numbers of the file, whatever
    their precision."""

    @property
    def name(self) -> str: ...
    @property
    def independent(self) -> bool: ...  # it shares no code with what wrote the file
    @property
    def exact(self) -> bool: ...
    def log_probabilities(self, ids: Sequence[int]) -> Tensor: ...  # (T, vocab) float32: of each next token
    def encode(self, text: str) -> list[int]: ...
    def opening(self) -> list[int]: ...  # the ids that it puts before every text
    def chats(self, conversations: Sequence[Messages]) -> list[Said] | None: ...  # None without a chat template
    def remarks(self, texts: Sequence[str]) -> list[str]: ...  # what its users have to know, seen from these texts


class Transformers:
    """AutoModelForCausalLM and PreTrainedTokenizerFast on a folder, without network access or code from the folder.

    AutoTokenizer takes a class of its own for some architectures (Qwen2), which leaves out the normaliser and the rule
    of splitting in tokenizer.json.
    """

    independent = exact = True

    def __init__(self, folder: Path) -> None:
        import transformers

        self.folder = folder
        self.name = f"transformers {transformers.__version__}"
        log = transformers.utils.logging
        shown = log.is_progress_bar_enabled()
        log.disable_progress_bar()
        try:
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).float()
            self.tokenizer: Any = transformers.PreTrainedTokenizerFast.from_pretrained(folder, **options)
            self.chosen: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
        finally:
            if shown:
                log.enable_progress_bar()
        self.model.eval()

    @torch.no_grad()
    def log_probabilities(self, ids: Sequence[int]) -> Tensor:
        return self.model(torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def opening(self) -> list[int]:
        ids = list(self.tokenizer("a")["input_ids"])
        return ids[: len(ids) - len(self.encode("a"))]

    def chats(self, conversations: Sequence[Messages]) -> list[Said] | None:
        if self.tokenizer.chat_template is None:
            return None
        texts = rendered({"folder": str(self.folder.resolve()), "conversations": conversations})
        return [(text, self.encode(text)) for text in texts]

    def remarks(self, texts: Sequence[str]) -> list[str]:
        options = {"add_special_tokens": False, "verbose": False}
        differing = [t for t in texts if self.chosen(t, **options)["input_ids"] != self.encode(t)]
        if not differing:
            return []
        return [
            f"AutoTokenizer reads this tokenizer as a {type(self.chosen).__name__}, which gives {len(differing)} of "
            f"{len(texts)} texts other ids, such as {differing[0][:40]!r}: open it by PreTrainedTokenizerFast"
        ]


class LlamaCpp:
    """llama-cpp-python on a GGUF file, for texts of at most `context` tokens, with a float32 cache."""

    independent = True

    def __init__(self, file: Path, context: int) -> None:
        import llama_cpp

        self.name = f"llama-cpp-python {llama_cpp.__version__}"
        with redirect_stderr(io.StringIO()):  # remarks on the size of its cache
            self.model: Any = llama_cpp.Llama(
                str(file), n_ctx=context, n_batch=context, logits_all=True, type_k=0, type_v=0, verbose=False
            )
        self.exact = self.model.metadata.get("general.file_type") == "0"  # other types round activations as well

    def log_probabilities(self, ids: Sequence[int]) -> Tensor:
        self.model.reset()
        self.model.eval(list(ids))
        return torch.from_numpy(np.array(self.model.scores[: len(ids)])).float().log_softmax(-1)

    def encode(self, text: str) -> list[int]:
        return self.model.tokenize(text.encode(), add_bos=False, special=False) if text else []

    def opening(self) -> list[int]:
        ids = self.model.tokenize(b"a", add_bos=True, special=False)
        return ids[: len(ids) - len(self.encode("a"))]

    def chats(self, conversations: Sequence[Messages]) -> list[Said] | None:
        template = self.model.metadata.get("tokenizer.chat_template")
        if template is None:
            return None
        begin, end = (self.name_of(i) for i in (self.model.token_bos(), self.model.token_eos()))
        texts = rendered({"template": template, "begin": begin, "end": end, "conversations": conversations})
        return [(text, self.model.tokenize(text.encode(), add_bos=False, special=True)) for text in texts]

    def remarks(self, texts: Sequence[str]) -> list[str]:
        return []

    def name_of(self, token: int) -> str:
        return str(self.model.detokenize([token], special=True).decode("utf-8", "replace"))


class Afresh:
    """afresh's own reader: it shows that the file is complete, but no other program has read it."""

    independent, exact = False, True

    def __init__(self, path: Path, context: int) -> None:
        self.name = "afresh's own reader"
        self.base: Base = load_base(path)
        self.net = decoder_of(self.base, context)
        self.tokenizer = self.base.tokenizer
        if path.suffix == ".gguf":  # the table, as llama.cpp would read it
            table = gguf_tokenizer.read_table(open_gguf(path))
            names = {self.tokenizer.inner.id_to_token(i) for i in set(self.tokenizer.special.values())}
            inner = gguf_tokenizer.build(table, {n for n in names if n}, str(path))
            inner.encode_special_tokens = True
            self.tokenizer = replace(self.tokenizer, kind="foreign", inner=inner)

    @torch.no_grad()
    def log_probabilities(self, ids: Sequence[int]) -> Tensor:
        return self.net(torch.tensor([list(ids)]), None)[0].log_softmax(-1)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def opening(self) -> list[int]:
        return [] if self.base.first is None else [self.base.first]

    def chats(self, conversations: Sequence[Messages]) -> list[Said] | None:
        return None if self.base.chat_template is None else said_in(self.base.tokenizer, conversations)

    def remarks(self, texts: Sequence[str]) -> list[str]:
        return []


def transformers_or_afresh(path: Path, context: int) -> Reader:
    """transformers where it is installed."""
    try:
        return Transformers(path)
    except ImportError:
        return Afresh(path, context)


def llama_cpp_or_afresh(path: Path, context: int) -> Reader:
    """llama.cpp where llama-cpp-python is installed."""
    try:
        return LlamaCpp(path, context)
    except ImportError:
        return Afresh(path, context)
