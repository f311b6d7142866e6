"""A model of characters with a token for every byte, so that other programs can feed it any text.

afresh spells a character that did not occur in training in nibbles, two tokens a byte. No other program does: the
library tokenizers and llama.cpp know one token a byte at most. An export therefore has byte-level BPE (Sennrich et al.
2016; bytes as in GPT-2) in place of characters. The ids of all known tokens stay; behind them come tokens for the bytes
that no known character spells alone, and for the first bytes that a known character of three or four bytes begins with,
which BPE merges on its way to it.
"""

from __future__ import annotations

from dataclasses import replace

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from torch import Tensor

from afresh.data.text.pieces import byte_names
from afresh.data.text.tokenizer import NIBBLES, Tokenizer, put_before
from afresh.runs.formats.base import Base

# Logits of a token that is never a target sink with training, but there are some 200 new ones: twice the logit keeps
# their probabilities together below those of the sixteen nibbles.
HEAD_SCALE = 2.0


def with_bytes(base: Base) -> Base:
    """The same model with a token for every byte; the base itself unless its tokenizer is one of characters.

    A new token's row of the embedding is the mean of its bytes' nibbles, of the output twice the mean of all nibbles. A
    head that shared the embedding becomes a separate weight.
    """
    t = base.tokenizer
    if t.kind != "chars":
        return base
    known = {name: i for i, name in sorted((i, n) for n, i in t.inner.get_vocab().items())}
    vocab, merges = pieces_of(known)
    new = list(vocab)[len(known) :]
    config, embedding = base.config, base.weights["embedding.weight"][: len(known)]
    head = (base.weights["embedding.weight" if config.tied else "head.weight"])[: len(known)]
    nibbles = list(t.nibbles)
    byte = {name: b for b, name in enumerate(byte_names())}
    spelt = [[nibbles[h] for c in name for h in divmod(byte[c], 16)] for name in new]
    rows = torch.stack([mean_row(embedding, ids) for ids in spelt])
    out = (mean_row(head, nibbles).float() * HEAD_SCALE).to(head.dtype).expand(len(new), -1)
    weights = {
        **base.weights,
        "embedding.weight": torch.cat([embedding, rows]),
        "head.weight": torch.cat([head, out]),
    }
    note = (
        f"{len(new)} tokens were added behind the {len(known)} that were trained, so that any text can be fed: a "
        "character that did not occur in training becomes its bytes of UTF-8"
    )
    return replace(
        base,
        config=config.model_copy(update={"tied": False}),
        weights=weights,
        tokenizer=byte_level(base, vocab, merges),
        notes=(*base.notes, note),
    )


def mean_row(table: Tensor, ids: list[int]) -> Tensor:
    """The mean of rows of a table, (width,), in its precision."""
    return table[ids].float().mean(0).to(table.dtype)


def pieces_of(known: dict[str, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary of bytes in GPT-2's alphabet, and its merges, from the names and ids of a tokenizer of characters.

    Merges join the bytes of one character from the first to the last, and never two characters.
    """
    alphabet = byte_names()
    spelt = {n: [alphabet[b] for b in n.encode()] for n in known if len(n) == 1}
    vocab = {"".join(spelt.get(n, [n])): i for n, i in known.items()}
    merges: dict[tuple[str, str], None] = {}
    for letters in spelt.values():
        merges |= {("".join(letters[:k]), letters[k]): None for k in range(1, len(letters))}
    for name in (*alphabet, *(a + b for a, b in merges)):
        vocab.setdefault(name, len(vocab))
    return vocab, list(merges)


def byte_level(base: Base, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """The tokenizer of a vocabulary and merges, with the special tokens, first token and chat template of the base."""
    t = base.tokenizer
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    added = [token.content for _, token in sorted(t.inner.get_added_tokens_decoder().items())]
    # Nibbles are special as well: no text encodes to them, and decoding leaves them out.
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in (*NIBBLES, *added)])
    begin, end, pad = (str(t.inner.id_to_token(t.special[s])) for s in ("begin", "end", "pad"))
    if base.first is not None:
        begin = str(t.inner.id_to_token(base.first))
        put_before(inner, base.first)
    return Tokenizer.foreign(inner.to_str(), begin, end, pad, chat_template=t.chat_template)
