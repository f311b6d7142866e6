"""Causal language models of transformers behind the interface of the own decoder (nets/transformer.py): hidden states,
logits, and a cache whose rows come and go.

A model is divided at its last hidden states. The trunk, which makes them, is the module of transformers that computes
them; the head is the rest, which runs with the states given to it in the trunk's place, so that whatever a model does
to its logits (a cap, a scale) is done here too.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Cond, UserError

INSTALL = "pip install 'afresh[hf]'"
SINCE = (5, 24)  # earlier versions of transformers keep the states of some architectures in caches of their own
STATE_SPACE = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
# What is not of the network, or would fetch code.
LEFT_OUT = ("auto_map", "attn_implementation", "_attn_implementation", "experts_implementation", "dtype", "torch_dtype")


def transformers() -> Any:
    """Imports the package. Raises UserError with the command to install it if it is missing or too old."""
    try:
        installed = version("transformers")
        import transformers as package
        from transformers.utils import logging
    except (PackageNotFoundError, ImportError) as e:
        raise UserError(f"This model needs a package that is not installed ({e.name}): {INSTALL}.") from None
    if tuple(int(n) for n in installed.split(".")[:2]) < SINCE:
        raise UserError(
            f"This model needs transformers {'.'.join(map(str, SINCE))} or later. Installed: {installed}. To renew it: "
            "pip install -U transformers."
        )
    logging.disable_progress_bar()  # of reading weights, which would stand between the lines of a command
    return package


def config_of(saved: Mapping[str, Any]) -> Any:
    """The configuration of transformers from the content of config.json, without what would fetch code. Raises
    UserError if transformers does not know the architecture or rejects a field."""
    package, fields = transformers(), {k: v for k, v in saved.items() if k not in LEFT_OUT}
    kind = fields.pop("model_type", None)
    try:
        return package.AutoConfig.for_model(kind, **with_infinities(fields))
    except Exception as e:  # each architecture checks its fields in its own way
        raise UserError(
            f"transformers {package.__version__} cannot read {kind!r} from config.json: {error_line(e)}"
        ) from None


def with_infinities(value: Any) -> Any:
    """What config.json holds, with numbers that JSON has not, which transformers writes as {"__float__": "Infinity"},
    and without leave to run code, which some architectures take from there.
    Raises ValueError if one is not a number."""
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {k: with_infinities(v) for k, v in value.items() if k != "trust_remote_code"}
    return [with_infinities(v) for v in value] if isinstance(value, list) else value


def model_class(config: Any) -> Any:
    """The class of the causal language model of a configuration. Raises UserError if none exists."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CLASSES

    if config.is_encoder_decoder or type(config) not in CLASSES:
        kind = "an encoder and a decoder" if config.is_encoder_decoder else "not a causal language model"
        raise UserError(
            f"{config.model_type} is {kind} in transformers. Accepted are models that continue a text: the classes "
            "named ...ForCausalLM."
        )
    return CLASSES[type(config)]


def built(saved: Mapping[str, Any], vocab: int) -> nn.Module:
    """The model of transformers for so many tokens, with random weights. Raises UserError if it cannot be built."""
    config = config_of(saved)
    config.get_text_config().vocab_size = vocab
    kind = model_class(config)
    try:
        model: nn.Module = kind._from_config(config, dtype=torch.float32)
    except UserError:
        raise
    except Exception as e:  # each architecture checks its fields in its own way
        raise UserError(f"transformers cannot build {kind.__name__} from its config.json: {error_line(e)}") from None
    return model


def error_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Given(nn.Module):
    """What stands in the place of a trunk: it returns the hidden states that it is given as `inputs_embeds`."""

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> HiddenStates:
        return HiddenStates(last_hidden_state=inputs_embeds)


class HiddenStates(dict[Any, Tensor]):
    """The output of a trunk that has no other fields than the last hidden states, by its name or its place."""

    def __missing__(self, at: int) -> Tensor:
        return tuple(self.values())[at]

    def __getattr__(self, name: str) -> Tensor | None:
        return self.get(name)


class TiedHead(nn.Module):
    """The linear map by the weight of the embedding, which is a part of the trunk and not of this module."""

    def __init__(self, table: Any, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.table, self.bias = (table,), bias  # in a tuple, which torch does not look into

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.table[0].weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class CausalLM(nn.Module):
    """A causal language model of transformers: tokens (B, T) to logits (B, T, vocab)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        table, head, trunk = model.get_input_embeddings(), model.get_output_embeddings(), model.get_decoder()
        names = {id(m): name for name, m in model.named_modules()}
        if trunk is model or head is None or id(trunk) not in names:
            raise UserError(f"{type(model).__name__} does not separate its hidden states from its logits.")
        if head.weight is table.weight:
            model.set_submodule(names[id(head)], TiedHead(table, head.bias))
        for name, part in list(model.named_modules()):
            if isinstance(part, Conv1D):
                # The layer of a Conv1D of GPT-2, which holds its matrix the other way round.
                linear = nn.Linear(1, 1, device="meta")  # its own weight is replaced
                linear.in_features, linear.out_features = part.weight.shape
                linear.weight, linear.bias = nn.Parameter(part.weight.detach().T.contiguous()), part.bias
                model.set_submodule(name, linear)
        self.place = names[id(trunk)]  # of the trunk in the model
        self.config = model.config
        self.trunk, self.head = trunk, model
        model.set_submodule(self.place, Given())
        self.takes = frozenset(inspect.signature(trunk.forward).parameters)
        self.eval()

    def train(self, mode: bool = True) -> CausalLM:
        """Stays in evaluation mode, as dropout in transformers would use torch's global generator."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def kept(self) -> list[str]:
        """The hidden layers that have no adapter unless it is asked for, as in PEFT: convolutions that keep channels
        apart, and layers of state-space models that are not called, as their weight is taken directly."""
        taken = (".dt_proj", ".out_proj") if self.config.model_type in STATE_SPACE else (".dt_proj",)
        beside = () if self.config.get_text_config() is self.config else ("head.",)  # what reads pictures or sounds
        return [
            n for n, m in self.named_modules() if isinstance(m, nn.Conv1d) or n.endswith(taken) or n.startswith(beside)
        ]

    def name_in_transformers(self, name: str) -> str:
        """The name in the whole model of a part of this module."""
        part, _, rest = name.partition(".")
        return f"{self.place}.{rest}" if part == "trunk" else rest

    def condition(self, cond: Cond) -> None:
        """A public model has no conditions."""

    def hidden(
        self,
        tokens: Tensor,
        c: Tensor | None,
        cache: RowsCache | None = None,
        counts: Tensor | None = None,
        keep: Sequence[Tensor] = (),
    ) -> Tensor:
        """Tokens (B, T) int64 -> hidden states (B, T, width). With a cache, the first counts[b] (None: all) tokens
        continue those in it."""
        assert c is None and not keep
        if cache is None:
            return self.states(tokens, {"use_cache": False})
        return cache.feed(tokens, torch.full_like(tokens[:, 0], tokens.shape[1]) if counts is None else counts)

    def states(self, tokens: Tensor, given: Mapping[str, Any]) -> Tensor:
        """The hidden states of tokens (B, T), with those of the arguments `given` that the trunk has."""
        states: Tensor = self.trunk(input_ids=tokens, **{k: v for k, v in given.items() if k in self.takes})[0]
        return states

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype) -> RowsCache:
        return RowsCache(self, None, torch.zeros(batch, 0, dtype=torch.bool, device=self.device))

    def logits(self, h: Tensor) -> Tensor:
        """Hidden states (..., width) -> logits (..., vocab), float32."""
        out = self.head(inputs_embeds=h.reshape(1, -1, h.shape[-1]), use_cache=False).logits
        return out.float().view(*h.shape[:-1], out.shape[-1])

    def forward(
        self,
        tokens: Tensor,
        c: Tensor | None,
        targets: Tensor | None = None,
        keep: Sequence[Tensor] = (),
        negatives: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, vocab), float32; with `targets` (B, T), -1 where they do not count, their summed cross-entropy
        (B,) instead."""
        h = self.hidden(tokens, c, keep=keep)
        return self.logits(h) if targets is None else self.token_nats(h, targets).sum(1)

    def token_nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of each of the targets (B, T), 0 where it is -1 and does not count, (B, T)."""
        logits = self.logits(h).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="none").view(targets.shape)


# --------------------------------------------------------------------------- cache


class RowsCache:
    """The state of rows that are aligned at their last token, as transformers generates batches: what stands before the
    first token of a row is padding, and a row has no other.

    `cache`: of transformers, None before the first token. `known` (B, L) bool: which of its places are tokens of a row.
    """

    def __init__(self, net: CausalLM, cache: Any, known: Tensor) -> None:
        self.net, self.cache, self.known = net, cache, known

    def select(self, rows: Tensor) -> RowsCache:
        """A cache of these rows, without the places that none of them uses."""
        known = self.known[rows]
        unused = int((~known.any(0)).long().cumprod(0).sum())
        return RowsCache(self.net, self._with(lambda t: t[rows], lambda t: t[rows][:, :, unused:]), known[:, unused:])

    def extend(self, count: int) -> RowsCache:
        """The same rows and `count` empty ones after them."""

        def longer(t: Tensor) -> Tensor:
            return torch.cat([t, t.new_zeros(count, *t.shape[1:])])

        return RowsCache(self.net, self._with(longer, longer), longer(self.known))

    def restart(self, rows: Tensor) -> None:
        """Empties some rows."""
        self.known[rows] = False

    def _with(self, states: Any, keys: Any) -> Any:
        """The cache of transformers with other recurrent states (B, ...), keys and values (B, heads, L, D)."""
        return None if self.cache is None else mapped([self.cache], lambda t: states(t[0]), lambda t: keys(t[0]))

    def feed(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """The hidden states (B, T, width) of the first counts[b] of tokens (B, T), which continue the rows. Those after
        them are of no use."""
        kinds = counts.where(self.known.any(1), 0)  # empty rows go together, others with those that go as far
        if bool((kinds == kinds[0]).all()):
            return self._advance(tokens, counts)
        out, groups, places = None, [], []
        for kind in kinds.unique().tolist():
            rows = (kinds == kind).nonzero()[:, 0]
            group = self.select(rows)
            h = group._advance(tokens[rows], counts[rows])
            out = h.new_zeros(*tokens.shape, h.shape[-1]) if out is None else out
            out[rows] = h
            groups.append(group)
            places.append(rows)
        order, longest = torch.cat(places).argsort(), max(g.known.shape[1] for g in groups)

        def aligned(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([F.pad(p, (0, 0, longest - p.shape[2], 0)) for p in parts])[order]

        self.cache = mapped([g.cache for g in groups], lambda parts: torch.cat(list(parts))[order], aligned)
        self.known = torch.cat([F.pad(g.known, (longest - g.known.shape[1], 0)) for g in groups])[order]
        assert out is not None
        return out

    def _advance(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """The same for rows that are all empty, or that all go on with as many tokens."""
        longest, t = int(counts.max()), tokens.shape[1]
        at = torch.arange(t, device=tokens.device)
        if bool(self.known.any()):
            h = torch.cat([self._step(tokens[:, i : i + 1]) for i in range(longest)], 1)
            return F.pad(h, (0, 0, 0, t - longest))
        place = at[:longest] - (longest - counts)[:, None]  # of each column in the row, negative before it
        self.cache, self.known = new_cache(self.net.config), place >= 0
        h = self._states(tokens.gather(1, place.clamp_min(0)), self.known)
        back = (at + (longest - counts)[:, None]).clamp_max(longest - 1)
        return h.gather(1, back[:, :, None].expand(-1, -1, h.shape[-1]))

    def _step(self, tokens: Tensor) -> Tensor:
        self.known = F.pad(self.known, (0, 1), value=True)
        return self._states(tokens, self.known if attends(self.cache) else None)

    def _states(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        places = (self.known.long().cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        given = {"attention_mask": None if mask is None else mask.long(), "position_ids": places}
        return self.net.states(tokens, {**given, "cache": self.cache, "use_cache": True})


def new_cache(config: Any) -> Any:
    """An empty cache. Layers with a sliding window keep everything here, so that rows can be aligned again; what the
    window hides is hidden by the mask. Raises UserError for layers whose states cannot be put together."""
    from transformers import DynamicCache, cache_utils

    try:
        cache = DynamicCache(config=config)
    except Exception as e:  # each architecture names its layers in its own way
        raise UserError(f"transformers has no cache for the states of {config.model_type}: {error_line(e)}") from None
    both, window = cache_utils.LinearAttentionAndFullAttentionLayer, cache_utils.DynamicSlidingWindowLayer
    plain = (cache_utils.DynamicLayer, cache_utils.LinearAttentionLayer, both, cache_utils.DummyLayer)
    for i, layer in enumerate(cache.layers):
        if isinstance(layer, cache_utils.LinearAttentionAndSlidingWindowAttentionLayer):
            cache.layers[i] = both(number_of_states=layer.number_of_states)
        elif isinstance(layer, window):
            cache.layers[i] = cache_utils.DynamicLayer()
        elif type(layer) not in plain:
            raise UserError(
                f"{config.model_type} keeps its states in a {type(layer).__name__}, which is not supported."
            )
    return cache


def attends(cache: Any) -> bool:
    """Whether any layer keeps keys and values."""
    from transformers.cache_utils import DynamicLayer

    return any(isinstance(layer, DynamicLayer) for layer in cache.layers)


def mapped(caches: Sequence[Any], states: Any, keys: Any) -> Any:
    """A cache of `states` of the lists of recurrent states (B, ...) of some caches, and of `keys` of the lists of their
    keys and of their values (B, heads, L, D)."""
    from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

    out = copy(caches[0])
    out.layers = []
    for parts in zip(*(c.layers for c in caches), strict=True):
        layer = copy(parts[0])
        if isinstance(layer, DynamicLayer) and layer.is_initialized:
            layer.keys, layer.values = keys([p.keys for p in parts]), keys([p.values for p in parts])
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            for name in ("conv_states", "recurrent_states"):
                held = {i: [getattr(p, name)[i] for p in parts] for i in getattr(layer, name)}
                setattr(layer, name, {i: None if v[0] is None else states(v) for i, v in held.items()})
        out.layers.append(layer)
    return out
