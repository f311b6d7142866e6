"""`afresh demo`: three trainings on data made on the spot, and a page that shows them; or such data alone."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, say

QUICK = 0.1  # of the usual time


def program() -> str:
    """How `afresh` is called from this folder."""
    beside = Path(sys.executable).with_name("afresh")
    if shutil.which("afresh") or not beside.exists():
        return "afresh"
    return os.path.relpath(beside)


def commands(out: Path) -> list[tuple[str, str]]:
    """What to do next, with the command for it."""
    afresh, runs = program(), out / "runs"
    return [
        ("More of one scene", f"{afresh} sample {runs / 'drawings'} -n 16 --label fish --out fish"),
        ("A tale with a beginning of yours", f'{afresh} sample {runs / "tales"} -n 3 --prompt "One evening a red"'),
        ("More bells, with a page to play them", f"{afresh} sample {runs / 'sounds'} -n 8 --label bell --out bells"),
        (
            "The tales for four minutes: does it remember more?",
            f"{afresh} train {out / 'data' / 'tales'} --minutes 4 --out runs/tales",
        ),
        ("All measures, in about two minutes", f"{afresh} measure {runs / 'drawings'}"),
        (
            "Learn on towards what is preferred, here bright images",
            f"{afresh} align {runs / 'drawings'} --reward brightness --minutes 1 --out runs/bright",
        ),
        ("All three on a page where you create with them", f"{afresh} serve {runs} --open"),
        ("See what would be learnt from a folder of your own", f"{afresh} data FOLDER"),
        ("Learn it", f"{afresh} train FOLDER --minutes 10"),
    ]


def demo(
    data: Annotated[
        str | None,
        typer.Argument(help="Instead: data to compute, such as trajectories of a physical system; list names all."),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A number that DATA depends on, as trajectories=100.")
    ] = None,
    seed: Annotated[int, o.option("The same seed gives the same DATA.")] = 0,
    out: Annotated[Path | None, o.option("Folder to write to; afresh-demo, or the name of DATA, by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the time: it works, it is not yet good.")] = False,
    force: o.Force = False,
    as_json: Annotated[
        bool, o.json_of("{page, image, seconds, next}, or {path, maker, settings, seed, notes}")
    ] = False,
) -> None:
    """See it work: drawings, tales and sounds are made by a script, learnt by three models, and shown on one page.

    Takes about two minutes on two cores. No data is downloaded. --force replaces an earlier demonstration in --out.

    With DATA, only data to learn from is computed: afresh demo burgers --set trajectories=100; afresh train burgers.
    """
    from afresh.core import UserError
    from afresh.services.demo.show import check_folder, run_demo

    if quick if data else (setting or seed):
        raise UserError("`quick` is of the demonstration, `settings` and `seed` are of DATA. Leave them out.")
    if data:
        make_data(data, out, setting or [], seed, force, as_json)
        return
    out = out or Path("afresh-demo")
    check_folder(out, force)
    following = commands(out)
    result = run_demo(out, QUICK if quick else 1.0, following)
    result["next"] = [command for _, command in following]
    if as_json:
        emit(result)
        return
    answer("")
    answer(f"{result['seconds']:,.0f} seconds. Try next:")
    for command in result["next"]:
        answer(f"  {command}")
    answer("")
    answer(f"Open the page: {result['page']}")


def make_data(name: str, out: Path | None, setting: list[str], seed: int, force: bool, as_json: bool) -> None:
    from afresh.core import registry
    from afresh.core.options import pairs
    from afresh.verbs.make_data import make_data as make
    from afresh.verbs.make_data import maker_named

    if name == "list":
        makers = registry.makers()
        if as_json:
            emit({"makers": {k: {"about": m.about, "settings": list(m.settings)} for k, m in makers.items()}})
            return
        for key, maker in makers.items():
            say(f"{key}: {maker.about}")
        return
    made = make(name, out, pairs(setting, "--set"), seed, force)
    if as_json:
        emit(made.json())
        return
    settings = ", ".join(maker_named(name).settings)
    for line in (*made.notes, f"settings: {settings}", f"next: afresh train {made.path}"):
        say(line)
