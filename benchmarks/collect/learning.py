"""What cleaning is for: a model of a messy mixture and one of what `collect` makes of it, after the same minutes, each
on a processor of its own, in bits a byte of clean stories that neither saw."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from pathlib import Path

import numpy as np

from benchmarks.collect.documents import made_source
from benchmarks.common.folders import data_folder
from benchmarks.common.ours import nats
from benchmarks.common.processes import finish, start
from benchmarks.common.results import Row

MINUTES, SEEDS = 1.5, (0, 1, 2)
COPIED, COPIES = 0.25, 8  # of the stories, and how often each
FOREIGN, NOISE = 0.25, 0.15  # documents in other languages and of noise, for each story

MENUS = (
    "Home | About | Contact | Login",
    "Share on Facebook   Share on Twitter   Share by e-mail",
    "Home > Stories > For children",
    "Skip to content",
    "Log in   Sign up   Subscribe",
)
NOTICES = (
    "We use cookies to improve your experience. By continuing to use this site you accept our use of cookies.",
    "This site uses cookies. Accept all cookies",
    "Copyright 2021 All rights reserved.",
    "Please enable JavaScript in your browser.",
)
LANGUAGES = (
    (
        "Der kleine Hund lief durch den Garten und suchte seinen Ball.",
        "Am Abend erzählte die Großmutter den Kindern eine lange Geschichte.",
        "Im Winter lag der Schnee so hoch, dass niemand die Tür öffnen konnte.",
        "Das Mädchen fand einen Stein am Ufer und brachte ihn ihrer Mutter.",
        "Sie wollten zusammen spielen, aber es regnete den ganzen Tag.",
        "Der Junge hatte Angst vor dem Gewitter und versteckte sich unter der Decke.",
        "Auf dem Markt kauften sie Äpfel, Brot und ein wenig Käse.",
        "Nach der Schule gingen die Freunde an den Fluss und warfen Steine ins Wasser.",
    ),
    (
        "Le petit chat dormait sur le fauteuil près de la fenêtre.",
        "La fille a trouvé une clé dans le jardin de sa grand-mère.",
        "Ils sont partis tôt le matin pour voir la mer.",
        "Le garçon avait peur du noir et demandait toujours une lumière.",
        "Chaque soir, la mère lisait une histoire aux enfants.",
        "Les oiseaux chantaient dans les arbres quand le soleil se levait.",
        "Il a donné son gâteau à son ami parce qu'il était triste.",
        "Au marché, ils ont acheté des pommes et un peu de fromage.",
    ),
    (
        "El perro pequeño corría por el parque y buscaba su pelota.",
        "La niña encontró una flor azul y se la dio a su madre.",
        "Por la noche, el abuelo contaba cuentos junto al fuego.",
        "Los amigos querían jugar, pero llovía y se quedaron en casa.",
        "El niño tenía miedo de la tormenta y se escondió bajo la cama.",
        "En el mercado compraron manzanas, pan y un poco de queso.",
        "Después de la escuela fueron al río y tiraron piedras al agua.",
        "El gato subió al árbol y no sabía cómo bajar.",
    ),
)


def stories(data: Path) -> tuple[list[str], list[str]]:
    """Stories to learn and held-out ones."""
    packed = gzip.decompress((data / "tinystories" / "tinystories_train.txt.gz").read_bytes()).decode()
    tales = [t.strip() for t in packed.split("<|endoftext|>") if t.strip()]
    cut = int(0.9 * len(tales))
    return tales[:cut], tales[cut:]


def messy(tales: list[str]) -> list[str]:
    """The stories, many of them with what stands around a text on a page, some of them again and again with a word
    changed, among texts in other languages and noise."""
    rng = np.random.default_rng(0)
    out = [framed(t, rng) for t in tales]
    for place in np.flatnonzero(rng.random(len(tales)) < COPIED):
        for _ in range(COPIES):
            words = tales[place].split(" ")
            words[int(rng.integers(len(words)))] = words[int(rng.integers(len(words)))]
            out.append(framed(" ".join(words), rng))
    for _ in range(int(FOREIGN * len(tales))):
        sentences = LANGUAGES[int(rng.integers(len(LANGUAGES)))]
        out.append(" ".join(sentences[int(k)] for k in rng.integers(len(sentences), size=14)))
    out += [noise(rng) for _ in range(int(NOISE * len(tales)))]
    return [out[int(k)] for k in rng.permutation(len(out))]


def framed(text: str, rng: np.random.Generator) -> str:
    """A text as a poor extraction of a page leaves it."""
    if rng.random() < 0.3:
        return text
    menus = [MENUS[int(k)] for k in rng.permutation(len(MENUS))[:3]]
    notices = [NOTICES[int(k)] for k in rng.permutation(len(NOTICES))[:2]]
    return "\n".join([*menus, text, *notices])


def noise(rng: np.random.Generator) -> str:
    """Numbers, letters without words, or one line again and again."""
    form = int(rng.integers(3))
    if form == 0:
        return "\n".join(" ".join(f"{v:.4f}" for v in rng.normal(size=8)) for _ in range(20))
    if form == 1:
        return " ".join("".join(chr(33 + int(c)) for c in rng.integers(0, 90, 12)) for _ in range(90))
    return "\n".join([f"Click here to win prize number {int(rng.integers(1000))} now"] * 25)


def lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": t}) + "\n" for t in texts)


def bits(folder: Path, heldout: list[str]) -> float:
    """Bits a byte of held-out texts by the model of a run."""
    from afresh.runs.data import run_data
    from afresh.runs.run import Run

    run = Run.open(folder)
    return nats(run, run_data(run)) / math.log(2) / sum(len(t.encode()) for t in heldout)


def learning(folder: Path) -> list[Row]:
    from afresh.data.collected import rows
    from afresh.services.collect.gather import gather

    train, heldout = stories(data_folder())
    raw = messy(train)

    folder.mkdir(exist_ok=True)
    (folder / "heldout.jsonl").write_text(lines(heldout))
    (folder / "raw.jsonl").write_text(lines(raw))
    choices = {"heldout": 0, "against": [str(folder / "heldout.jsonl")], "leaks": "drop"}
    made = gather(
        [made_source("messy", lambda consumed: iter(raw))], folder / "set", on=["language=en"], assembly=choices
    )
    kept = [r["text"] for r in rows(folder / "set")]
    (folder / "clean.jsonl").write_text(lines(kept))
    print(f"{len(train):,} stories, {len(raw):,} raw, {len(kept):,} kept", made["left_out"])
    found: dict[str, list[float]] = {"raw": [], "clean": []}
    for seed in SEEDS:
        started = {}
        for core, side in enumerate(found):
            argv = ["afresh", "train", str(folder / f"{side}.jsonl"), "--modality", "text", "--no-measure", "--json"]
            argv += ["--validation", str(folder / "heldout.jsonl"), "--minutes", str(MINUTES), "--seed", str(seed)]
            argv += ["--out", str(folder / f"{side}-{seed}")]
            started[side] = start(argv, folder / f"{side}-{seed}.log", core)
        for side, process in started.items():
            finish(process, folder / f"{side}-{seed}.log")
            found[side].append(bits(folder / f"{side}-{seed}", heldout))
        print(seed, found, flush=True)
    better = [c < r for r, c in zip(found["raw"], found["clean"], strict=True)]
    told = {side: ", ".join(f"{b:.3f}" for b in values) for side, values in found.items()}
    ratio = statistics.mean(found["raw"]) / statistics.mean(found["clean"])
    return [
        Row(
            "collect",
            f"bits a byte of clean stories after {MINUTES:g} minutes; of the cleaned set beside the raw one",
            told["clean"],
            f"raw {told['raw']}",
            ratio,
            "lower in each seed",
            all(better),
            f"{len(raw):,} documents, {len(kept):,} kept; {len(train):,} stories, {len(heldout)} held out; three seeds",
        )
    ]
