"""The gallery: for each kind of data and family a small model, and its first samples, unselected.

`python -m benchmarks gallery` trains what has not been trained yet, and writes the page with its pictures and sounds
into docs/results. Runs stay in AFRESH_BENCH, so that a gallery that was stopped goes on. What AFRESH_DATA lacks is made
by a script, where there is one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import soundfile

import afresh
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import ROOT, work_folder, write_json
from benchmarks.common.results import this_machine
from benchmarks.gallery.data import source_of

PAGE = ROOT / "docs" / "results" / "gallery.md"
FAMILIES = {
    "image": ("flow", "gan", "vae", "fewstep"),
    "audio": ("flow", "gan", "vae"),
    "music": ("transformer", "masked"),
    "text": ("transformer", "masked", "vae"),
    "code": ("transformer", "masked"),
    "molecule": ("transformer", "masked", "vae"),
    "interactions": ("transformer", "masked", "vae"),
    "exercises": ("transformer",),
}
TEACHER = {"fewstep": "flow"}  # families that are distilled, and from which
TITLES = {
    "image": "Images",
    "audio": "Sounds",
    "music": "Music in notes",
    "text": "Texts",
    "code": "Source code",
    "molecule": "Molecules",
    "interactions": "Recommending",
    "exercises": "Adaptive learning",
}
PICTURES, SOUNDS, TEXTS, LISTS = 24, 4, 2, 3  # how many are shown
SECONDS, LETTERS = 6.0, 400  # of a sound and a text, at most
LARGEST = 3_000_000  # bytes of the page with its files


@dataclass(frozen=True)
class Exhibit:
    """One model: what it learnt, what that took, its verdict, and its samples in Markdown."""

    kind: str
    family: str
    data: str
    items: int
    minutes: float
    seconds: float
    machine: str
    parameters: int
    steps: int
    word: str
    sentence: str
    samples: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.family}"


def known() -> dict[str, tuple[str, str]]:
    """Kind and family of all exhibits, by name; a student comes after its teacher."""
    return {f"{kind}-{family}": (kind, family) for kind, families in FAMILIES.items() for family in families}


# --------------------------------------------------------------------------- training


def trained(kind: str, family: str, minutes: float, root: Path) -> Exhibit | None:
    """Train, draw and keep the files in root/shown. None where the data are not there."""
    source, name = source_of(kind), f"{kind}-{family}"
    if source is None:
        return None
    data, run = source.written(root / "data" / kind), root / "runs" / name
    run.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["train", str(data), "--modality", kind, "--family", family]
    if family in TEACHER:
        arguments = ["distill", str(run.with_name(f"{kind}-{TEACHER[family]}"))]
    begun = time.perf_counter()
    rest = ["--minutes", f"{minutes:g}", "--seed", "0", "--out", str(run), "--force"]
    processes.run(["afresh", *arguments, *rest], run.with_suffix(".log"))
    seconds, opened = time.perf_counter() - begun, Run.open(run)
    verdict = json.loads((run / "report.json").read_text("utf-8"))["sections"][0].get("verdict") or {}
    samples = shown(afresh.load(run), kind, name, root / "shown")
    record, steps = opened.record, AboutRun(opened).steps
    word, sentence = verdict.get("word", ""), verdict.get("sentence", "")
    return Exhibit(
        kind=kind,
        family=family,
        data=source.title,
        items=record.data.train,
        minutes=minutes,
        seconds=seconds,
        machine=this_machine(),
        parameters=record.parameters,
        steps=steps,
        word=word,
        sentence=sentence,
        samples=samples,
    )


# --------------------------------------------------------------------------- samples


def shown(model: afresh.Model, kind: str, name: str, folder: Path) -> str:
    """The first samples as Markdown, and their files in a folder, whose names begin with `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*"):
        old.unlink()
    if kind in INSTEAD:
        return INSTEAD[kind](model)
    with TemporaryDirectory() as made:
        samples = model.sample(PICTURES, seed=0)
        samples.save(made)
        sounds, grid = sorted(Path(made).rglob("*.wav"))[:SOUNDS], Path(made) / "grid.png"
        if sounds:
            return "\n".join(player(file, folder / f"{name}-{i}.mp3") for i, file in enumerate(sounds))
        if grid.exists():
            shutil.copyfile(grid, folder / f"{name}-grid.png")
            return f"![The first {PICTURES} samples](gallery/{name}-grid.png)"
        return "\n\n".join(f"```text\n{str(text)[:LETTERS].strip()}\n```" for text in samples.values[:TEXTS])


def player(sound: Path, file: Path) -> str:
    """The beginning of a sound as an MP3 file, and what plays it; where HTML is not shown, a link stays."""
    with soundfile.SoundFile(sound) as opened:
        soundfile.write(file, opened.read(int(SECONDS * opened.samplerate)), opened.samplerate)
    at = f"gallery/{file.name}"
    return f'<audio controls preload="none" src="{at}"><a href="{at}">{file.stem}</a></audio>'


def lists(model: afresh.Model) -> str:
    """What the first customers may choose next, with what each item rests on."""
    users = [f"c{i}" for i in range(LISTS)]
    made: Any = afresh.verb("recommend")(model, users, k=5, because=1)
    rows = zip(users, made, strict=True)

    def told(item: Any) -> str:
        return f"{item.item} (by {item.because[0].title})" if item.because else str(item.item)

    return "\n".join(f"- {user}: {', '.join(map(told, items))}" for user, items in rows)


def practice(model: afresh.Model) -> str:
    """What the first learners should practise."""
    lines = []
    for learner in (f"L{i:05d}" for i in range(LISTS)):
        made: Any = afresh.verb("practise")(model, learner, k=3)
        lines.append(f"- {learner}: {', '.join(e.item for e in made.next)}")
    return "\n".join(lines)


INSTEAD: dict[str, Callable[[afresh.Model], str]] = {"interactions": lists, "exercises": practice}


# --------------------------------------------------------------------------- the page


def page(exhibits: Sequence[Exhibit], note: str = "") -> str:
    """The page, in the order of FAMILIES. `note`: a sentence about the circumstances."""
    by_name = {e.name: e for e in exhibits}
    about = (
        "Made by `python -m benchmarks gallery`; not edited by hand. For each kind of data and family a small model, "
        "and what it draws first with the seed 0: nothing is selected, and nothing was set but the family. Of a sound "
        f"the first {SECONDS:g} seconds are here, of a text the first {LETTERS} characters."
    )
    parts = ["# Gallery", fill(f"{about} {note}".strip(), 120)]
    for kind, families in FAMILIES.items():
        found = [by_name[f"{kind}-{f}"] for f in families if f"{kind}-{f}" in by_name]
        if found:
            parts += [f"## {TITLES[kind]}", *(part for e in found for part in (f"### {title(e)}", facts(e), e.samples))]
    return "\n\n".join(parts) + "\n"


def title(e: Exhibit) -> str:
    return f"{TITLES[e.kind]} by {e.family}"


def facts(e: Exhibit) -> str:
    """Data, minutes, machine and verdict."""
    how = f", distilled from the {TEACHER[e.family]} above" if e.family in TEACHER else ""
    learnt = f"{e.items:,} of {e.data}; {e.minutes:g} minutes ({e.seconds:,.0f} s) on {e.machine}"
    return f"{learnt}; {e.parameters / 1e6:.2f}M parameters, {e.steps:,} steps{how}. **{e.word}**: {e.sentence}"


def write_page(root: Path, to: Path, note: str = "") -> None:
    """The page of all that was made, and its files beside it. Raises SystemExit if they are too large."""
    exhibits = [Exhibit(**json.loads(f.read_text("utf-8"))) for f in sorted((root / "exhibits").glob("*.json"))]
    files = [f for e in exhibits for f in sorted((root / "shown").glob(f"{e.name}-*"))]
    text = page(exhibits, note)
    if (size := len(text.encode()) + sum(f.stat().st_size for f in files)) > LARGEST:
        raise SystemExit(f"The gallery has {size:,} bytes; at most {LARGEST:,} are kept.")
    folder = to.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    to.write_text(text, "utf-8")
    print(f"{len(exhibits)} models, {size:,} bytes: {to}")


def main(*given: str) -> None:
    parser = parser_of("gallery", __doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each model; 10 by default")
    parser.add_argument("--only", default="", help=f"with commas, of {', '.join(known())}")
    parser.add_argument("--again", action="store_true", help="train what was trained before anew")
    parser.add_argument("--note", default="", help="a sentence about the circumstances, for the page")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is written; its files lie beside it")
    asked = parser.parse_args(given)
    names = [n for n in asked.only.split(",") if n] or list(known())
    if unknown := sorted(set(names) - set(known())):
        parser.error(f"there is no {', '.join(unknown)}; choose from {', '.join(known())}")
    root = work_folder(f"gallery-{asked.minutes:g}")
    (root / "exhibits").mkdir(exist_ok=True)
    for name in names:
        file = root / "exhibits" / f"{name}.json"
        if file.exists() and not asked.again:
            continue
        made = trained(*known()[name], asked.minutes, root)
        if made is None:
            print(f"{name}: left out, its data are not in AFRESH_DATA", flush=True)
            continue
        write_json(file, asdict(made))
        print(f"{name}: {made.seconds:.0f} s, {made.word}", flush=True)
    write_page(root, asked.page, asked.note)


BENCHMARKS = (Benchmark("gallery", (), 260, main),)
