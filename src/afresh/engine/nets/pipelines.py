"""Text-to-image pipelines of diffusers by their parts: how each encodes a text, and what its network is called with.

`ARCHITECTURES` has a row for each class of pipeline. A row knows the names of the parts and the arguments of the
network; schedulers, shifts and guidance in sampling are left to the pipeline's own class, into which the parts are put
(`pipeline_of`). No code of a folder is run, and only safetensors are read.

The embedding of a text is one row of numbers, the parts of `Architecture.encode` one after the other (`flat`, `split`),
so that it is kept like any other condition.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import UserError
from afresh.data.storage.chat_rendering import RENDERER, RenderError

INSTALL = "pip install 'afresh[diffusers]'"
INDEX = "model_index.json"
MOST_WRITTEN = 1_000_000  # characters that a chat template may write
LARGE, COMMON = 10_000, 4  # tokens of a vocabulary of words; in the first quarter are those that occur often
LIBRARIES = ("diffusers", "transformers")  # whose classes a part of a pipeline may have
Text = Mapping[str, Tensor]  # an embedded text: arguments of the pipeline's call, each (B, ...)


def diffusers() -> Any:
    """Imports the package. Raises UserError with the command to install it if it is missing."""
    try:
        import diffusers as package
    except ImportError as e:
        raise UserError(f"This model needs a package that is not installed ({e.name}): {INSTALL}.") from None
    return package


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the logs and progress bars of diffusers and transformers; what they warn of is checked here."""
    logs = [diffusers().utils.logging]
    if find_spec("transformers") is not None:
        logs.append(import_module("transformers.utils.logging"))
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
            log.enable_progress_bar()


# --------------------------------------------------------------------------- architectures


@dataclass(frozen=True)
class View:
    """What a network is told beside latents, time and text: the image in pixels, and its embedded guidance."""

    height: int
    width: int
    guidance: float


@dataclass(frozen=True)
class Sequenced:
    """Latents (B, C, h, w) as a pipeline takes noise (`given`), has them between steps (`within`) and returns them
    (`returned`); `back` and `result` are the inverses of the last two, for h and w. `cells`: of a row, along a side.
    """

    given: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, int, int], Tensor]
    result: Callable[[Tensor, int, int], Tensor]
    cells: int = 1


def fit_scale(pipe: Any, factor: int) -> None:
    pipe.vae_scale_factor = factor


@dataclass(frozen=True)
class Architecture:
    """A class of pipelines.

    `place` and `network`: the folder and class of its network. `texts`: the parts that encode texts, tokenizers
    included. `encode`: the embedding (1, ...) of a text, or of no text (None), as the pipeline has it for guidance.
    `call`: the network's prediction (B, C, h, w) for latents, times in the scheduler's steps (0 to 1,000, (B,)) and
    texts. `flow`: whether it predicts noise minus data of a straight path, instead of what the scheduler says.
    `longest`: tokens of a text that it reads at most. `patch`: cells of the latents that it reads as one, along each
    side. `sequence`: how the pipeline orders the cells of latents between steps, if not as an image. `side`: of its
    images in pixels, if its network does not say it. `options`: further arguments of the pipeline's call. `distilled`:
    whether guidance is an input of the network, so that there is no second branch unless a negative text is given.
    `arguments`: a text as arguments of the pipeline's call, if they are not the parts themselves. `guided`: guidance as
    the pipeline's call counts it. `fit`: prepares a pipeline that has no autoencoder to draw latents, of which a cell
    has so many pixels along a side.
    """

    place: str
    network: str
    texts: tuple[str, ...]
    encode: Callable[[Any, str | None], Text]
    call: Callable[[Any, Tensor, Tensor, Text, View], Tensor]
    flow: bool = False
    longest: int = 77
    patch: int = 1
    sequence: Sequenced | None = None
    side: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    distilled: bool = False
    arguments: Callable[[Text], Mapping[str, Any]] = lambda text: text
    guided: Callable[[float], Mapping[str, float]] = lambda guidance: {"guidance_scale": guidance}
    fit: Callable[[Any, int], None] = fit_scale


def pack(z: Tensor) -> Tensor:
    """Latents (B, C, h, w) as a sequence of squares of 2 x 2 cells, (B, h w / 4, 4 C)."""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(z: Tensor, h: int, w: int) -> Tensor:
    """The inverse of `pack`."""
    b, _, wide = z.shape
    return z.view(b, h // 2, w // 2, wide // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, wide // 4, h, w)


def unflatten(z: Tensor, h: int, w: int) -> Tensor:
    """A sequence of cells (B, h w, C) as latents (B, C, h, w)."""
    return z.transpose(1, 2).reshape(len(z), -1, h, w)


def squares(z: Tensor) -> Tensor:
    """Latents (B, C, h, w) with the cells of each square of 2 x 2 as channels, (B, 4 C, h / 2, w / 2)."""
    return nn.functional.pixel_unshuffle(z, 2)


def encode_sd(pipe: Any, text: str | None) -> Text:
    return {"prompt_embeds": pipe.encode_prompt(text or "", device_of(pipe), 1, False)[0]}


def call_sd(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    out: Tensor = net(z, time, encoder_hidden_states=text["prompt_embeds"], return_dict=False)[0]
    return out


def encode_sdxl(pipe: Any, text: str | None) -> Text:
    embeds, _, pooled, _ = pipe.encode_prompt(text or "", device=device_of(pipe), do_classifier_free_guidance=False)
    if text is None and pipe.config.force_zeros_for_empty_prompt:
        embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def call_sdxl(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    """As for an image that was not cropped: (its size, the corner, the size to draw)."""
    ids = torch.tensor([view.height, view.width, 0, 0, view.height, view.width], device=z.device, dtype=z.dtype)
    added = {"text_embeds": text["pooled_prompt_embeds"], "time_ids": ids.expand(len(z), -1)}
    embeds = text["prompt_embeds"]
    out: Tensor = net(z, time, encoder_hidden_states=embeds, added_cond_kwargs=added, return_dict=False)[0]
    return out


def encode_sd3(pipe: Any, text: str | None) -> Text:
    embeds, _, pooled, _ = pipe.encode_prompt(
        text or "", None, None, device=device_of(pipe), do_classifier_free_guidance=False
    )
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def call_sd3(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    out: Tensor = net(
        hidden_states=z,
        timestep=time,
        encoder_hidden_states=text["prompt_embeds"],
        pooled_projections=text["pooled_prompt_embeds"],
        return_dict=False,
    )[0]
    return out


def encode_flux(pipe: Any, text: str | None) -> Text:
    embeds, pooled, _ = pipe.encode_prompt(text or "", device=device_of(pipe))
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def call_flux(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    h, w = z.shape[2:]
    y, x = torch.meshgrid(torch.arange(h // 2), torch.arange(w // 2), indexing="ij")
    places = torch.stack([torch.zeros_like(y), y, x], -1).view(-1, 3)
    embedded = torch.full((len(z),), view.guidance, device=z.device) if net.config.guidance_embeds else None
    out = net(
        hidden_states=pack(z),
        timestep=time / 1000,
        guidance=embedded,
        pooled_projections=text["pooled_prompt_embeds"],
        encoder_hidden_states=text["prompt_embeds"],
        txt_ids=torch.zeros(text["prompt_embeds"].shape[1], 3, device=z.device),
        img_ids=places.to(z),
        return_dict=False,
    )[0]
    return unpack(out, h, w)


def encode_sana(pipe: Any, text: str | None) -> Text:
    """As the pipeline's call does it: instructions precede a text, and none precede that of no text."""
    asked = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default
    embeds, mask, null, null_mask = pipe.encode_prompt(
        text or "", True, negative_prompt="", device=device_of(pipe), complex_human_instruction=asked
    )
    if text is None:
        embeds, mask = null, null_mask
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def call_sana(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    out: Tensor = net(
        z,
        encoder_hidden_states=text["prompt_embeds"],
        encoder_attention_mask=text["prompt_attention_mask"],
        timestep=time * net.config.timestep_scale,
        return_dict=False,
    )[0]
    return out


def encode_z_image(pipe: Any, text: str | None) -> Text:
    """The states of a text's tokens, padded, as texts have different lengths, and which are of the text."""
    (states,) = pipe.encode_prompt([text or ""], device=device_of(pipe), do_classifier_free_guidance=False)[0]
    return padded(states, Z_IMAGE_TOKENS)


def padded(states: Tensor, length: int) -> Text:
    """States (T, E) padded to a length, and the mask of those that are kept."""
    rest = length - len(states)
    kept = torch.cat([torch.ones(len(states)), torch.zeros(rest)])
    return {"prompt_embeds": nn.functional.pad(states, (0, 0, 0, rest))[None], "kept": kept[None]}


def unpadded(text: Text) -> dict[str, list[Tensor]]:
    """The states of each text without padding."""
    rows = zip(text["prompt_embeds"], text["kept"], strict=True)
    return {"prompt_embeds": [states[: int(kept.sum())] for states, kept in rows]}


def call_z_image(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    images = list(z[:, :, None].unbind())
    out = net(images, (1000 - time) / 1000, unpadded(text)["prompt_embeds"], return_dict=False)[0]
    return -torch.stack(list(out))[:, :, 0]


def encode_qwen(pipe: Any, text: str | None) -> Text:
    """The states of a text's tokens, padded. Its guides take a space for no text."""
    states, _ = pipe.encode_prompt(text or NO_QWEN_TEXT, device=device_of(pipe))
    return padded(states[0], QWEN_TOKENS)


def trimmed(text: Text) -> dict[str, Tensor]:
    """The states as far as the longest text goes, and which are of each text."""
    kept = text["kept"]
    longest = int(kept.sum(1).max())
    return {"prompt_embeds": text["prompt_embeds"][:, :longest], "prompt_embeds_mask": kept[:, :longest].long()}


def call_qwen(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    h, w = z.shape[2:]
    given = trimmed(text)
    out = net(
        hidden_states=pack(z),
        timestep=time / 1000,
        guidance=torch.full((len(z),), view.guidance, device=z.device) if net.config.guidance_embeds else None,
        encoder_hidden_states_mask=given["prompt_embeds_mask"],
        encoder_hidden_states=given["prompt_embeds"],
        img_shapes=[[(1, h // 2, w // 2)]] * len(z),
        return_dict=False,
    )[0]
    return unpack(out, h, w)


def encode_flux2(pipe: Any, text: str | None) -> Text:
    return {"prompt_embeds": pipe.encode_prompt(text or "", device=device_of(pipe))[0]}


def call_flux2(net: Any, z: Tensor, time: Tensor, text: Text, view: View) -> Tensor:
    """Places are those of images, rows, columns and, of texts, tokens."""
    h, w = z.shape[2:]
    embeds, one = text["prompt_embeds"], torch.arange(1, device=z.device)
    rows, columns, tokens = (torch.arange(n, device=z.device) for n in (h, w, embeds.shape[1]))
    out = net(
        hidden_states=z.flatten(2).transpose(1, 2),
        timestep=time / 1000,
        guidance=None,
        encoder_hidden_states=embeds,
        txt_ids=torch.cartesian_prod(one, one, one, tokens),
        img_ids=torch.cartesian_prod(one, rows, columns, one),
        return_dict=False,
    )[0]
    return unflatten(out, h, w)


def fit_flux2(pipe: Any, factor: int) -> None:
    """Its latents are squares of 2 x 2 cells of the autoencoder, which its class normalises by the autoencoder's own
    statistics; here by none, as the codec of a run does it."""
    pipe.vae_scale_factor = factor // 2
    statistics = SimpleNamespace(running_mean=torch.zeros(1), running_var=torch.ones(1))
    pipe.vae = SimpleNamespace(bn=statistics, config=SimpleNamespace(batch_norm_eps=0.0))


Z_IMAGE_TOKENS, QWEN_TOKENS, NO_QWEN_TEXT = 512, 1024, " "
PACKED = Sequenced(pack, unpack, unpack, cells=2)
ARCHITECTURES: Mapping[str, Architecture] = {
    "StableDiffusionPipeline": Architecture(
        "unet", "UNet2DConditionModel", ("tokenizer", "text_encoder"), encode_sd, call_sd
    ),
    "StableDiffusionXLPipeline": Architecture(
        "unet",
        "UNet2DConditionModel",
        ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        encode_sdxl,
        call_sdxl,
    ),
    "StableDiffusion3Pipeline": Architecture(
        "transformer",
        "SD3Transformer2DModel",
        ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "tokenizer_3", "text_encoder_3"),
        encode_sd3,
        call_sd3,
        flow=True,
        longest=256,
        patch=2,
    ),
    "FluxPipeline": Architecture(
        "transformer",
        "FluxTransformer2DModel",
        ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        encode_flux,
        call_flux,
        flow=True,
        longest=512,
        patch=2,
        sequence=PACKED,
        side=1024,
        distilled=True,
    ),
    "SanaPipeline": Architecture(
        "transformer",
        "SanaTransformer2DModel",
        ("tokenizer", "text_encoder"),
        encode_sana,
        call_sana,
        flow=True,
        longest=300,
        options={"use_resolution_binning": False},
    ),
    "Flux2KleinPipeline": Architecture(
        "transformer",
        "Flux2Transformer2DModel",
        ("tokenizer", "text_encoder"),
        encode_flux2,
        call_flux2,
        flow=True,
        longest=512,
        sequence=Sequenced(lambda z: z, unflatten, lambda z, h, w: squares(z)),
        side=1024,
        fit=fit_flux2,
    ),
    "ZImagePipeline": Architecture(
        "transformer",
        "ZImageTransformer2DModel",
        ("tokenizer", "text_encoder"),
        encode_z_image,
        call_z_image,
        flow=True,
        longest=Z_IMAGE_TOKENS,
        patch=2,
        side=1024,
        arguments=unpadded,
        guided=lambda guidance: {"guidance_scale": guidance - 1},  # text + scale (text - none)
    ),
    "QwenImagePipeline": Architecture(
        "transformer",
        "QwenImageTransformer2DModel",
        ("tokenizer", "text_encoder"),
        encode_qwen,
        call_qwen,
        flow=True,
        longest=QWEN_TOKENS,
        patch=2,
        sequence=PACKED,
        side=1024,
        options={"negative_prompt": NO_QWEN_TEXT},
        arguments=trimmed,
        guided=lambda guidance: {"true_cfg_scale": guidance},
    ),
}


def device_of(pipe: Any) -> torch.device:
    """The device of the encoders of a pipeline."""
    return next(p.device for part in pipe.components.values() if isinstance(part, nn.Module) for p in part.parameters())


# --------------------------------------------------------------------------- folders


def read_index(folder: Path) -> dict[str, Any]:
    """The content of model_index.json. Raises UserError if it is not a JSON object."""
    file = folder / INDEX
    try:
        index = json.loads(file.read_bytes())
    except (OSError, ValueError) as e:
        raise UserError(f"Cannot read {file}: {e}. Download the folder again.") from None
    if not isinstance(index, dict):
        raise UserError(f"{file} is not a JSON object. Download the folder again.")
    return index


def is_text_to_image(folder: Path) -> bool:
    """Whether a folder is a pipeline of a class that is known here, complete or not."""
    return (folder / INDEX).is_file() and read_index(folder).get("_class_name") in tuple(ARCHITECTURES)


def part_class(folder: Path, index: Mapping[str, Any], name: str) -> Any:
    """The class of a pipeline's part; None if the pipeline goes without it. Raises UserError for a class that is not
    one of LIBRARIES, whose code would have to be trusted, and for a part without a folder."""
    entry = index.get(name)
    if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
        return None
    library, kind = entry
    if library not in LIBRARIES:
        raise UserError(
            f"{folder / INDEX} names {library}.{kind} as its {name}: code that comes with the model is never run. "
            f"Supported are parts of {' and '.join(LIBRARIES)}."
        )
    if not (folder / name).is_dir():
        raise UserError(f"{folder} has no folder {name}, which its {INDEX} names ({kind}). Download it again, whole.")
    if library == "diffusers":
        package = diffusers()
    else:
        try:
            package = import_module(library)
        except ImportError:
            raise UserError("The text encoders need transformers: pip install 'afresh[diffusers]'.") from None
    found = getattr(package, str(kind), None)
    if not isinstance(found, type):
        raise UserError(f"The installed {library} {package.__version__} has no {kind} ({folder / INDEX}). Update it.")
    return found


def variant_of(place: Path) -> str | None:
    """The name of a precision that all files of weights in a folder have in their names, such as fp16; None if there
    are files without one."""
    names = {m[1] for f in place.glob("*.safetensors") if (m := re.search(r"\.(fp16|bf16)[.-]", f.name + "."))}
    plain = [f for f in place.glob("*.safetensors") if not re.search(r"\.(fp16|bf16)[.-]", f.name + ".")]
    return None if plain or len(names) != 1 else names.pop()


def known_fields(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that a class of diffusers knows; it leaves out the others, too."""
    known = inspect.signature(kind.__init__).parameters
    return {k: v for k, v in config.items() if k in known}


def pipeline_of(kind: str, index: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    """A pipeline of diffusers that has these parts and no others, with the settings of its index."""
    made = getattr(diffusers(), kind)
    given: dict[str, Any] = {}
    for name, known in inspect.signature(made.__init__).parameters.items():
        if name in parts:
            given[name] = parts[name]
        elif name == "requires_safety_checker":
            given[name] = False
        elif name in index and not isinstance(index[name], list):
            given[name] = index[name]
        elif name != "self" and known.default is inspect.Parameter.empty:
            given[name] = None
    with quiet():
        pipe = made(**given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --------------------------------------------------------------------------- texts


def rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], tokenize: bool, **variables: Any) -> str:
    """A conversation in a tokenizer's chat template, in the place of its own method, which would run a template of
    anybody in this process. Raises UserError if the template takes too long or needs too much memory."""
    assert not tokenize
    named = {**tokenizer.special_tokens_map, **variables, "messages": messages}
    try:
        return RENDERER.render(tokenizer.get_chat_template(), named, MOST_WRITTEN)
    except RenderError as e:
        raise UserError(f"The chat template of {tokenizer.name_or_path} rejects the text: {e}.") from None


def flat(text: Text) -> Tensor:
    """The parts of embedded texts, in order, as rows (B, E) of float32."""
    return torch.cat([v.flatten(1).float() for v in text.values()], 1)


def split(rows: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The inverse of `flat`, for parts (B, *shape)."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    return {k: v.view(-1, *shapes[k]) for k, v in zip(shapes, rows.split(sizes, 1), strict=True)}


@dataclass(frozen=True)
class PipelineText:
    """The frozen text encoders of a pipeline in a folder, opened by `text_of`. They are on the device only while they
    encode, as the network that learns needs the memory."""

    folder: Path
    device: torch.device

    @cached_property
    def index(self) -> dict[str, Any]:
        return read_index(self.folder)

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.index["_class_name"]]

    @cached_property
    def pipe(self) -> Any:
        """The pipeline with its text encoders alone. Raises UserError if one is missing or damaged, or a pickle."""
        parts: dict[str, Any] = {}
        for name in self.architecture.texts:
            kind = part_class(self.folder, self.index, name)
            parts[name] = None if kind is None else self.read(kind, self.folder / name)
        if parts[self.architecture.texts[1]] is None:
            raise UserError(
                f"{self.folder} has no text encoder: its {INDEX} names none as {self.architecture.texts[1]}. Download "
                "the pipeline again, whole."
            )
        return pipeline_of(self.index["_class_name"], self.index, parts)

    def read(self, kind: Any, place: Path) -> Any:
        """A tokenizer, or an encoder in float32, or bfloat16 if it is stored so."""
        network = issubclass(kind, nn.Module)
        if network and not list(place.glob("*.safetensors")):
            raise UserError(
                f"{place} has no safetensors. Pickle files (.bin) are never opened. If you trust their source, convert "
                f"them: diffusers.DiffusionPipeline.from_pretrained({str(self.folder)!r}).save_pretrained('converted')."
            )
        options = {"use_safetensors": True, "dtype": "auto", "variant": variant_of(place)} if network else {}
        try:
            with quiet():
                part = kind.from_pretrained(str(place), local_files_only=True, **options)
        except Exception as e:  # transformers raises errors of many types for a damaged file
            raise UserError(
                f"{place} cannot be read as {kind.__name__}: {' '.join(str(e).split())[:300]}. Download it again."
            ) from None
        if not network:
            part.apply_chat_template = partial(rendered, part)
            return part
        return (part if part.dtype == torch.bfloat16 else part.float()).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str | None]) -> list[dict[str, Tensor]]:
        """The embedding (1, ...) of each text, or of no text, on the CPU. Texts are encoded one by one, so that an
        embedding does not depend on those beside it."""
        encoders = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        with quiet():
            for part in encoders:
                part.to(self.device)
            out = [{k: v.float().cpu() for k, v in self.architecture.encode(self.pipe, t).items()} for t in texts]
            for part in encoders:
                part.to("cpu")
        return out

    @cached_property
    def null(self) -> dict[str, Tensor]:
        """The embedding of no text."""
        return self.encode([None])[0]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each part of an embedding."""
        return {k: tuple(v.shape[1:]) for k, v in self.null.items()}

    @property
    def width(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the encoder that reads the longest texts: the last that the pipeline has."""
        names = [n for n in self.architecture.texts if n.startswith("tokenizer") and getattr(self.pipe, n) is not None]
        return getattr(self.pipe, names[-1])

    @property
    def limit(self) -> int:
        """The tokens of a text that are read at most."""
        return min(self.architecture.longest, int(self.tokenizer.model_max_length))

    def is_common(self, word: str) -> bool:
        """Whether a word is one of the more frequent tokens: vocabularies are in order of frequency."""
        with quiet():
            ids = self.tokenizer(word, add_special_tokens=False).input_ids
        return len(ids) == 1 and len(self.tokenizer) >= LARGE and ids[0] < len(self.tokenizer) // COMMON

    def vectors(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """(N, E) float32 on the CPU, and the indices of texts whose end is not read."""
        with quiet():
            long = [i for i, text in enumerate(texts) if len(self.tokenizer(text).input_ids) > self.limit]
        return torch.cat([flat(text) for text in self.encode(texts)]), long


def text_of(folder: Path, device: torch.device) -> PipelineText:
    """The text encoders of a pipeline; those opened last are kept."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in text_files(folder)]
    return _text_of(folder, device, tuple(stats))


@lru_cache(maxsize=1)
def _text_of(folder: Path, device: torch.device, files: object) -> PipelineText:
    return PipelineText(folder, device)


def text_files(folder: Path) -> list[Path]:
    """Every file that the embeddings of a pipeline's texts depend on."""
    places = [folder / n for n in ARCHITECTURES[read_index(folder)["_class_name"]].texts]
    return [folder / INDEX, *sorted(f for p in places if p.is_dir() for f in p.iterdir() if f.is_file())]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that the embeddings of a pipeline's texts depend on, by its path in the folder."""
    out = {}
    for file in text_files(folder):
        with file.open("rb") as stream:
            out[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return out
