"""A run on a log whose next choice is known, for tests of recommendations."""

from __future__ import annotations

from pathlib import Path

from afresh.faces.cli import run as command

ITEMS = 12
TRANSFORMER = ("width=32", "layers=1", "heads=2", "kv_heads=2", "tied=true", "negatives=8", "dropout=0.1")
SIZES = {"transformer": TRANSFORMER, "masked": ("width=32", "layers=1", "heads=2")}


def shop(folder: Path, family: str = "transformer", steps: int = 150) -> Path:
    """A run in `folder` on users who each go through the items in their order, with a table of what the items are."""
    (folder / "data").mkdir()
    events = [f"u{u},i{(u + e) % ITEMS},{1_700_000_000 + 1000 * e + u}" for u in range(60) for e in range(4 + u % 5)]
    (folder / "data" / "log.csv").write_text("\n".join(["user,item,time", *events, ""]))
    rows = [f"i{i},Thing {i},{('red', 'blue')[i % 2]},{i}" for i in range(ITEMS)]
    (folder / "data" / "items.csv").write_text("\n".join(["item,title,colour,price", *rows, ""]))
    settings = [part for s in SIZES[family] for part in ("--set", f"family.{s}")]
    settings += ["--set", "train.batch=16", "--data", "split=last"]
    settings += ["--set", "train.lr=0.01"] if family == "transformer" else []
    train = ["train", str(folder / "data"), "--steps", str(steps), "--out", str(folder / "run"), "--no-measure"]
    assert command([*train, "--family", family, *settings]) == 0
    return folder / "run"
