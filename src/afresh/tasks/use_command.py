"""What is typed next to use a run."""

from __future__ import annotations

from pathlib import Path

from afresh.core.visible import shell_word
from afresh.runs.run import Run
from afresh.sampling.request import writes_text


def use_command(run: Run) -> str:
    """The command by which a run is used: that of its kind of items, or a few samples."""
    name, kind, data = shell_word(str(run.path)), run.encoder.kind, run.record.data
    if kind.use is not None:
        return kind.use(name, Path(data.path), data.options)
    out = shell_word(f"{run.path.name}-samples")
    if writes_text(run.encoder, run.space):
        return f'afresh sample {name} -n 16 --prompt "..." --out {out}'
    return f"afresh sample {name} -n 16 --out {out}"
