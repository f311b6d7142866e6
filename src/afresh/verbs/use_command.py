"""What is typed next to use a run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from afresh.core import UserError, registry
from afresh.core.safe_text import shell_word
from afresh.data.prepare import read_options
from afresh.engine.sampling.request import converses, prompt_ids, writes_text
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from afresh.runs.run_store import place
from afresh.runs.signature import made_here

PROMPT = "..."  # what a person replaces with a beginning of their own


def go_on_command(run: Run) -> str | None:
    """The command that trains a run to its planned steps; None if it has taken them."""
    found, name = AboutRun(run).progress, shell_word(place(run.path))
    if found is not None and found[0] >= found[1].steps:
        return None
    if found is not None and found[1].stopped:
        return f"afresh train --resume {name} --set ignore_stop=yes"
    return f"afresh train --resume {name}"


def next_commands(run: Run) -> list[str]:
    """What a person would type next: go on with training, use the run, and measure it."""
    go_on, measure = go_on_command(run), f"afresh measure {shell_word(place(run.path))}"
    return [*([] if go_on is None else [go_on]), *([use_command(run), measure] if AboutRun(run).steps else [])]


def use_command(run: Run) -> str:
    """The command by which a run is used: that of its kind of items, a conversation, or a few samples."""
    name, kind, data = shell_word(place(run.path)), run.encoder.kind, run.record.data
    if kind.use is not None:
        return kind.use(name, Path(data.path) if _may_be_read(run) else None, data.options)
    if converses(run.encoder, run.space):
        return f"afresh chat {name}"
    out = shell_word(f"{run.path.name}-samples")
    if writes_text(run.encoder, run.space):
        with suppress(UserError):  # of what does not begin like a text, such as a score
            prompt_ids(run.encoder, PROMPT, ask=False)
            return f'afresh sample {name} -n 16 --prompt "{PROMPT}" --out {out}'
    if run.codec is not None and run.guided and run.family.sampling.guided:  # docs/development/log.md
        return f"afresh sample {name} -n 16 --guidance 2 --out {out}"
    return f"afresh sample {name} -n 16 --out {out}"


def _may_be_read(run: Run) -> bool:
    """Whether the data that a run names may be looked into for an example: only if this user made the run."""
    try:
        read_options(registry.modality(run.record.modality), run.record.data.options)
    except UserError:
        return False
    return made_here(run)
