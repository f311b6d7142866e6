"""Which folder may become a run. A run that is replaced stays until the new one can begin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from afresh.core import UserError
from afresh.data.storage.files import sync_tree
from afresh.data.storage.folders import set_aside
from afresh.engine.training.signals import sigterm_interrupts
from afresh.runs.lock import half_made, held, kept
from afresh.runs.person_adapters import check_without_adapters
from afresh.runs.remove import is_rest, remove_rest

ASIDE = ".replaced"  # suffix of a run that waits for the one that takes its place


def is_run(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "checkpoints").exists()


def check_output_dir(out: Path, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Check before any minutes are spent. Raises UserError if `out` is occupied and `force` is false, and if replacing
    it would remove one of the `inputs` of the new run (a base model, data, votes)."""
    if out.exists() and not out.is_dir():
        raise UserError(f"The output {out} is a file. Choose a folder: `out=DIR`.", "output_is_file", path=str(out))
    if is_run(out):
        here = out.resolve()
        for path in inputs:
            there = path.expanduser().resolve()
            if there.exists() and (there == here or here in there.parents):
                which = "is an input of the new run" if there == here else f"holds {path}, an input of the new run"
                raise UserError(
                    f"{out} {which}, and would be replaced. Choose another output folder: `out=DIR`.", "output_is_input"
                )
        if not force:
            raise UserError(
                f"{out} already holds a run. Resume it: `afresh.resume({str(out)!r})`; replace it: `force=True`; or "
                "choose another output folder: `out=DIR`.",
                "output_is_run",
                path=str(out),
            )
        check_without_adapters(out, "replaced")
        if out.is_symlink():
            raise UserError(
                f"{out} is a link to a run. Give the folder itself as output, or another.", "output_is_link"
            )
        if (aside := put_aside(out)).exists():
            raise UserError(
                f"{aside} was put aside by a command that was killed before its new run could begin. Move it back, or "
                "remove it.",
                "output_put_aside",
            )
    elif out.is_dir() and any(out.iterdir()) and not force and not is_rest(out):
        raise UserError(
            f"{out} is a folder with other things in it. Choose another output folder, `out=DIR`, or use `force=True`.",
            "output_not_empty",
            path=str(out),
        )


def put_aside(out: Path) -> Path:
    return out.with_name(out.name + ASIDE)


@contextmanager
def output_dir(out: Path, force: bool, inputs: Sequence[Path] = ()) -> Iterator[None]:
    """Make room for a run in `out`, which this process holds from here on (runs/lock.py). If the block fails, nothing
    of the new run is left and a run that it was to replace is restored; that run is removed only once the block has
    ended. Raises UserError as `check_output_dir` does, and if another process holds either run."""
    check_output_dir(out, force, inputs)
    if half_made(out):  # by a command that was killed
        remove_rest(out)
    if not is_run(out):
        with _new_run(out):
            yield
        return
    with held(out, "replaced"), ExitStack() as stack:
        try:
            stack.enter_context(set_aside(out, put_aside(out)))
        except OSError as e:
            raise UserError(f"{out} cannot be replaced: {e.strerror or e}. Choose another output folder.") from e
        with _new_run(out):
            yield
        sync_tree(out)


@contextmanager
def _new_run(out: Path) -> Iterator[None]:
    """Hold a folder from here on. If the block fails, nothing that it put there is left."""
    before = set(out.iterdir()) if out.is_dir() else None
    with kept(out, "trained"):
        if is_run(out):
            raise UserError(f"Another process has just made a run in {out}. Choose another output folder.")
        try:
            with sigterm_interrupts():
                yield
        except BaseException:
            clear(out, before)
            raise


def clear(out: Path, before: set[Path] | None) -> None:
    """Remove the folder; if it existed before, only what is new in it."""
    if before is None:
        shutil.rmtree(out, ignore_errors=True)
        return
    for path in set(out.iterdir()) - before:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
