"""`afresh verify`: is a run sound, and where do works come from?"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.paths import Refusal, existing_run, run_path
from afresh.faces.cli.show import answer, emit, note, one_line


def run_or_works(name: str) -> str:
    """The folder that RUN names, or the file or folder of works, or an address as it is. Raises a usage error if
    nothing has that name."""
    path = Path(name)
    if on_the_web(name):
        return name
    found = run_path(path) or path
    if found == path and path.is_dir() and not any(path.iterdir()):
        raise Refusal(f"{name} is an empty folder. Give a run, or works: a file, a folder of files, or an address.")
    if path.suffix and not found.exists():
        raise Refusal(f"No file {name}. Give a run, or works: a file, a folder of files, or an address.")
    return name if is_works(found) and path.exists() else str(existing_run(path))


def on_the_web(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def is_works(path: Path) -> bool:
    """Whether this is a file, or a folder with files that is not a run and was none."""
    from afresh.services.provenance.read import works_in

    try:
        if not path.is_dir() or any((path / part).exists() for part in ("run.json", "checkpoints")):
            return path.is_file()
    except PermissionError:  # which is said when it is read
        return True
    return next(works_in(path), None) is not None


def verify(
    names: Annotated[
        list[str],
        typer.Argument(
            help="A run: its folder, or its name in runs/. Or works: files, bundles, folders, and files on the web.",
            metavar="RUN|WORKS...",
            callback=lambda names: [run_or_works(name) for name in names],
            autocompletion=completion.runs,
        ),
    ],
    trust: o.Trust = False,
    trust_signer: o.TrustSigner = None,
    as_json: Annotated[bool, o.json_of("{run, passed, checks}, or of works {passed, works: [{name, layers}]}")] = False,
) -> None:
    """Check a run, or read where works come from.

    Of a run: hashes, weights, data, resuming, the cache, and that a seed gives the same sample. What cannot be looked
    at (data that is gone) is said and does not fail. Of works, without a network: by whom they are signed, whether they
    have been changed since, and whether they bear the mark of your key; a bundle is checked with the works in it. A
    file on the web is fetched first. Exit code 0 when nothing is wrong and every work is valid, otherwise 1.
    """
    runs = [Path(name) for name in names if not on_the_web(name) and not is_works(Path(name))]
    if runs and len(names) > 1:
        raise Refusal(f"{runs[0]} is a run. Check it alone: afresh verify {runs[0]}.")
    if not runs:
        if trust:
            raise Refusal("--trust is for a run. Signers of works become known with --trust-signer CERT.pem.")
        verify_works(names, trust_signer, as_json)
    else:
        if trust_signer is not None:
            raise Refusal(f"--trust-signer is for works, and {runs[0]} is a run. Runs are trusted with --trust.")
        verify_run(runs[0], trust, as_json)


def verify_run(run: Path, trust: bool, as_json: bool) -> None:
    from rich.text import Text

    from afresh.runs.run import Run
    from afresh.verbs.trust_prompt import check_trust
    from afresh.verbs.verify import verify as all_checks

    found = Run.open(run)
    if trust:
        check_trust(found, trust)
    checks = all_checks(found)
    broken = [c.name for c in checks if c.passed is False]
    if as_json:
        emit({"run": str(run), "passed": not broken, "checks": [asdict(c) for c in checks]})
    else:
        for c in checks:
            word, style = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("-", "dim")}[c.passed]
            answer(
                Text(f"{word:5}", style=style)
                + Text(f"{c.name:9}{one_line(c.detail)}", style="" if c.passed else style)
            )
        answer(f"{run}: {'failed: ' + ', '.join(broken) if broken else 'sound'}")
    if broken:
        raise typer.Exit(1)


def verify_works(names: list[str], trust_signer: Path | None, as_json: bool) -> None:
    from rich.text import Text

    from afresh.core.plural import counted
    from afresh.services.provenance.layers import Status, lines
    from afresh.services.provenance.layers import as_json as described
    from afresh.services.provenance.trusted import trust as keep
    from afresh.verbs.verify_works import verify_address
    from afresh.verbs.verify_works import verify_works as all_works

    if trust_signer is not None:
        note(f"Known from now on: {', '.join(keep(trust_signer))}.")
    styles = {Status.VALID: "green", Status.MARKED: "green", Status.NOTHING: "dim", Status.UNKNOWN: "yellow"}
    found = []
    for finding in chain.from_iterable(verify_address(n) if on_the_web(n) else all_works(Path(n)) for n in names):
        found.append(finding)
        if not as_json:
            for status, text in lines(finding):
                answer(Text(f"{status:15}", style=styles.get(status, "bold red")) + Text(one_line(text)))
    valid = sum(f.status is Status.VALID for f in found)
    passed = bool(found) and valid == len(found)
    if as_json:
        emit({"passed": passed, "works": [described(f) for f in found]})
    else:
        marked = sum(f.status is Status.MARKED for f in found)
        also = f", {marked:,} without valid metadata but with your mark" if marked else ""
        what = names[0] if len(names) == 1 else f"{len(names):,} names"
        answer(f"{what}: {valid:,} of {counted(len(found), 'file')} valid{also}")
    if not passed:
        raise typer.Exit(1)
