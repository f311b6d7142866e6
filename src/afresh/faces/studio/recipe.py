"""Recipes of works for people, and in the metadata of files."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from afresh.core import registry
from afresh.engine.sampling.setting_words import WORDS
from afresh.faces.studio.controls import titled
from afresh.runs.works import Credentials
from afresh.services.provenance.work import Ingredient
from afresh.verbs.gallery import Work

VERBS = {"sample": "a new sample", "edit": "a change of a picture or sound", "blend": "between two works"}
VERBS |= {"complete": "completed at a cursor", "move": "moved towards a label"}


def how_made(verb: str) -> str:
    return VERBS[verb] if verb in VERBS else str(registry.creations()[verb].past)


def recipe_lines(work: Work) -> list[tuple[str, str]]:
    """(name, value) of everything that a work was made from."""
    recipe, wish = work.recipe, work.recipe.wish
    lines = [("Model", recipe.run), ("Made", recipe.made.replace("T", " ").partition("+")[0] + " UTC")]
    lines.append(
        ("How", how_made(wish.verb) if not wish.prompt or wish.verb != "sample" else "continued from a beginning")
    )
    lines += [("System message", text) for role, text in wish.turns if role == "system"]
    lines += [(titled(k), v) for k, v in wish.label.items()]
    lines += [(titled(k), f"{v:g}") for k, v in wish.number.items()]
    lines += [(f"Not {titled(k).lower()}", v) for k, v in wish.negative_label.items()]
    lines += [("Description", wish.caption or ""), ("Not", wish.negative_caption or "")]
    drawn = recipe.described.get("label")
    if drawn and not wish.label:
        lines.append(("Label, by chance", str(drawn)))
    lines += [(WORDS[k].term if k in WORDS else titled(k), str(v)) for k, v in wish.settings.items()]
    if wish.strength is not None:
        lines.append(("Change", f"{wish.strength:g}"))
    lines += [("Seconds regenerated", wish.hole or ""), ("Seconds added", f"{wish.extend:g}" if wish.extend else "")]
    lines.append(("Seconds that close the loop", f"{wish.loop:g}" if wish.loop else ""))
    lines.append(("Pixels added", ", ".join(f"{count} {side}" for side, count in wish.outpaint.items())))
    lines.append(("Enlarged", f"{wish.upscale} times" if wish.upscale > 1 else ""))
    lines.append(("Colours", ", ".join(wish.palette)))
    lines.append(("Follows", " and ".join(name for name in ("edges", "style") if getattr(wish, name))))
    lines += [("Towards", wish.toward or ""), ("Away from", wish.away or "")]
    creation = registry.creations().get(wish.verb)
    voices = creation is not None and creation.voices is not None
    lines.append(("Voice that stays", f"{wish.voice + 1}, counted from the top" if voices else ""))
    number = f", number {recipe.index + 1} of {wish.n}" if wish.n > 1 else ""
    lines += [("Seed", f"{wish.seed}{number}"), ("Weights", recipe.checkpoint)]
    return [(name, value) for name, value in lines if value]


def download(work: Work, kind: str) -> bytes | None:
    """A work as a file of a kind (png, wav, flac, mid, txt, json) with its recipe inside, as far as the kind has room
    for it, and signed; None if it is not kept as that. The kind `provenance` is a ZIP archive of the files without
    room, each with the signed statement beside it."""
    if kind == "provenance":
        return statements(work)
    content = with_recipe(work, kind)
    name = f"work.{kind}"
    return content if content is None or kind == "json" else signed(work, name, content)[name]


def signed(work: Work, name: str, content: bytes) -> dict[str, bytes]:
    """A file of a work, signed, with the statement beside it, unless its works were not to be."""
    recipe = work.recipe
    if recipe.run_id is None:
        return {name: content}
    made_of = recipe.wish.files
    ingredients = [
        Ingredient.of(file, work.read(file), relationship="inputTo" if i else "parentOf")
        for i, file in enumerate(made_of)
    ]
    by = Credentials(recipe.run_id, recipe.run, recipe.family, recipe.modality)
    wish = recipe.wish.model_dump(mode="json", exclude_defaults=True)
    return by.files(name, content, {**wish, "seed": recipe.wish.seed, "index": recipe.index}, ingredients)


def statements(work: Work) -> bytes | None:
    """The files of a work that cannot carry signed metadata, with the statements beside them; None if all can."""
    made = [signed(work, name, work.read(name)) for name in work.recipe.files]
    found = [files for files in made if len(files) > 1]
    if not found:
        return None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for files in found:
            for name, content in files.items():
                archive.writestr(name, content)
    return out.getvalue()


def with_recipe(work: Work, kind: str) -> bytes | None:
    text = json.dumps(work.recipe.model_dump(mode="json"), ensure_ascii=False)
    files = work.recipe.files
    if kind == "json":
        own = {"text": work.text()} if "work.txt" in files else {}
        return json.dumps({**own, "recipe": json.loads(text)}, indent=1, ensure_ascii=False).encode()
    if kind == "png" and "work.png" in files:
        return with_text(work.read("work.png"), text)
    if kind in ("wav", "flac") and "work.wav" in files:
        return with_comment(work.read("work.wav"), kind, text)
    name = f"work.{kind}"
    return work.read(name) if name in files else None


def kinds(work: Work) -> list[str]:
    """The kinds of files as which a work can be downloaded."""
    found = [name.rpartition(".")[2] for name in work.recipe.files]
    bare = work.recipe.run_id is not None and any(name.endswith((".txt", ".mid")) for name in work.recipe.files)
    return [*found, *(["flac"] if "wav" in found else []), "json", *(["provenance"] if bare else [])]


def with_text(png: bytes, text: str) -> bytes:
    """A PNG with the same pixels and the text `afresh` in it."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_itxt("afresh", text)
    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def with_comment(wav: bytes, kind: str, text: str) -> bytes:
    """A WAV or FLAC file with the same samples and a comment."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16", always_2d=True)
    out: Any = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, samples.shape[1], "PCM_16", format=kind.upper()) as file:
        file.comment = text
        file.software = "afresh"
        file.write(samples)
    return bytes(out.getvalue())
