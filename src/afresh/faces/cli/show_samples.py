"""Samples on standard output: texts as they are, images and sounds as pictures where the terminal can draw them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from afresh.faces.cli.show import answer, draws_pictures, note, one_line, table

if TYPE_CHECKING:
    from afresh.data.image.images import Pixels
    from afresh.engine.sampling.samples import Samples


def show_samples(
    samples: Samples, records: Sequence[dict[str, Any]] = (), between: str = "", most: int | None = None
) -> bool:
    """Show the samples, or the first `most` of them; returns whether they were shown. Images and sounds are not where
    standard output is a pipe, a file, or a terminal without colours.

    `records` are those of texts with log-probabilities; `between` stands between a prompt and its answer.
    """
    if samples.encoder.kind.view == "text":
        show_texts(samples, records, between, most)
        return True
    from afresh.engine.sampling.samples import images_of

    return draws_pictures() and show_pictures(images_of(samples.encoder, samples.values[:most]))


def show_pictures(images: Sequence[Pixels], most_columns: int = 1_000) -> bool:
    """Images (H, W, C) of one size as half blocks of colour, as many a row as fit, if standard output draws them."""
    from afresh.data.image.grid import terminal_grid

    if not images or not draws_pictures():
        return False
    width = min(most_columns, shutil.get_terminal_size().columns)
    columns = max(1, min(len(images), width // (images[0].shape[1] + 2)))
    grid = terminal_grid(images, columns, width)
    grid.right_crop(1)  # the last line end, which `answer` writes
    answer(grid)
    return True


def show_texts(
    samples: Samples, records: Sequence[dict[str, Any]] = (), between: str = "", most: int | None = None
) -> None:
    """Each text after its prompt, which is bold. Control characters, by which a text could command the terminal, are
    shown as their pictures."""
    from rich.rule import Rule
    from rich.text import Text

    from afresh.core.safe_text import visible
    from afresh.engine.sampling.request import contains_prompts

    previews = samples.encoder.kind.previews(samples.values[:most])
    for i, (preview, asked) in enumerate(zip(previews, samples.described, strict=False)):
        if len(previews) > 1:
            title = f"{i + 1}" + (f": {asked['label']}" if asked.get("label") else "")
            answer(Rule(Text(one_line(title)), style="dim"))
        begun = "" if contains_prompts(samples.encoder) else asked.get("prompt") or ""
        prompt = led(visible(begun), between)
        answer(Text(prompt, style="bold") + Text(visible(preview.text or "")))
        if records:
            show_tokens(records[i])


def led(prompt: str, between: str) -> str:
    """What stands before a text: answers begin on a line of their own."""
    return prompt + between if prompt and not prompt.endswith("\n") else prompt


def show_tokens(record: dict[str, Any]) -> None:
    """A table of the tokens and how likely each was, where that was asked for."""
    if "logprobs" in record:
        rows = [[json.dumps(t["text"], ensure_ascii=False), f"{t['logprob']:.4f}"] for t in record["logprobs"]]
        answer(table(["token", "log-probability"], rows, right=[1]))


def note_labels(samples: Samples) -> None:
    """The labels of samples that were shown without them."""
    names = sorted({str(d["label"]) for d in samples.described if d.get("label") is not None})
    if names:
        note(f"labels: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}; files: --out DIR")
