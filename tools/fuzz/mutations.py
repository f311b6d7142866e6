"""Changes of a run's files, as an accident or an attacker would make them: each is a function of a seed alone."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

DEEP = 20_000  # lists within lists
MOST_DEPTH = 100  # of a document whose values are changed: what is deeper was changed before
RAW = [
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "9" * 5_000,
    "1e999",
    "NaN",
    "-Infinity",
    '"\\ud800"',
]
VALUES: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 255, 1 << 15, 1 << 20, 1 << 31, 1 << 40, 1 << 63, 10**9, 10**30, -(10**12)),
    *(0.0, -0.5, 0.5, 1.5, 1e-300, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "cpu", "cuda:99", "mps", "../../etc/passwd", "/dev/zero", "\x1b]52;c;eA==\x07", "²", "1", "x" * 5_000),
    *(None, True, False, [], {}, [[]], [0], [-1], [1 << 40], [8] * 1_000, {"a": {"b": {}}}, ["x", 1, None]),
]
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


def mutate(run: Path, random: Random) -> str:
    """Change one file of a run, sometimes several, and mostly correct the hashes over it. Returns what was done."""
    done = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        files = sorted(p for p in run.rglob("*") if p.is_file() and p.suffix != ".html")
        # The files of each kind are equally likely, however many checkpoints and previews there are.
        kind = random.choice(sorted({key(p) for p in files}))
        file = random.choice([p for p in files if key(p) == kind])
        done.append(f"{file.relative_to(run)}: {change(file, random)}")
    if random.random() < 0.85:
        correct_hashes(run)
        done.append("hashes corrected")
    return ", ".join(done)


def key(file: Path) -> str:
    return re.sub(r"[0-9]{4,}", "N", file.name)


def change(file: Path, random: Random) -> str:
    how: list[Callable[[Path, Random], str]] = [change_bytes]
    if file.suffix in (".json", ".jsonl"):
        how += [change_json] * 6
    elif file.suffix == ".safetensors":
        how += [change_tensors] * 4
    return random.choice(how)(file, random)


# ------------------------------------------------------------------------------------------------------------ bytes


def change_bytes(file: Path, random: Random) -> str:
    data = bytearray(file.read_bytes())
    what = random.choice(["cut", "flip", "flip", "empty", "remove", "folder", "noise", "insert", "double", "length"])
    place = random.randrange(len(data) + 1)
    if what == "remove":
        file.unlink()
    elif what == "folder":
        file.unlink()
        file.mkdir()
    else:
        if what == "flip":
            for _ in range(random.choice((1, 1, 8))):
                if data:
                    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        elif what == "length":  # of the header of a safetensors file
            data[:8] = random.choice((0, 1, 100, 1 << 20, 1 << 40, (1 << 64) - 1)).to_bytes(8, "little")
        elif what == "insert":
            data[place:place] = random.randbytes(random.choice((1, 8, 1000)))
        else:
            new = {"cut": data[:place], "empty": b"", "noise": random.randbytes(len(data)), "double": data + data}
            data = bytearray(new[what])
        file.write_bytes(bytes(data))
    return f"{what} at {place:,}"


# ------------------------------------------------------------------------------------------------------------- JSON


def change_json(file: Path, random: Random) -> str:
    """Change a value of a JSON document, or of one line of JSON."""
    try:
        text = file.read_text("utf-8")
        lines = text.splitlines() if file.suffix == ".jsonl" else [text]
        number = random.randrange(len(lines))
        if depth(lines[number]) > MOST_DEPTH:
            return change_bytes(file, random)
        document = json.loads(lines[number])
    except (ValueError, OSError):
        return change_bytes(file, random)
    places = list(walk(document))
    path = random.choice([p for p in places if len(p) <= random.choice((1, 2, 3, 9))])
    changed, what = changed_at(document, path, random)
    lines[number] = raw(changed)
    file.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return f"{'.'.join(map(str, path)) or 'everything'} {what}"


def depth(text: str) -> int:
    """How many lists and objects lie within each other in a JSON document, or more if its strings hold brackets."""
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text)), default=0)


def walk(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:50]) if isinstance(value, list) else ()
    for k, v in inside:
        yield from walk(v, (*path, k))


class Raw(str):
    """Text that stands in the document as it is."""


def raw(document: Any) -> str:
    held: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            held.append(value)
            return f"\x00{len(held) - 1}\x00"
        if isinstance(value, dict):
            return {k: marked(v) for k, v in value.items()}
        return [marked(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(marked(document))
    for i, value in enumerate(held):
        text = text.replace(f'"\\u0000{i}\\u0000"', value)
    return text


def changed_at(document: Any, path: tuple[Any, ...], random: Random) -> tuple[Any, str]:
    """The document with one place changed, and what was done."""
    if not path:
        value = random.choice([*VALUES, *map(Raw, RAW)])
        return value, f"= {str(value)[:40]!r}"
    document = copy.deepcopy(document)
    owner = document
    for step in path[:-1]:
        owner = owner[step]
    last, old = path[-1], owner[path[-1]]
    what = random.choice(["value", "value", "value", "near", "remove", "rename", "add", "double", "sibling"])
    if what == "near" and isinstance(old, int | float) and not isinstance(old, bool):
        new = random.choice([old + 1, old - 1, old * 2, -old, old * 1000, old / 3, float(old), str(old)])
    elif what == "remove":
        del owner[last]
        return document, "removed"
    elif what == "rename" and isinstance(owner, dict):
        owner[f"{last}{random.choice(('x', ' ', '2'))}"] = owner.pop(last)
        return document, "renamed"
    elif what == "add" and isinstance(old, dict | list):
        value = random.choice(VALUES)
        old.update({"foreign": value}) if isinstance(old, dict) else old.append(value)
        return document, f"with {str(value)[:40]!r} added"
    elif what == "double" and isinstance(old, list | str):
        new = old * random.choice((2, 1000))
    elif what == "sibling":
        new = random.choice(list(owner.values()) if isinstance(owner, dict) else owner)
    else:
        new = random.choice([*VALUES, *map(Raw, RAW)])
    owner[last] = new
    return document, f"= {str(new)[:40]!r}"


# ---------------------------------------------------------------------------------------------------------- tensors


def change_tensors(file: Path, random: Random) -> str:
    try:
        tensors: dict[str, Tensor] = load(file.read_bytes())
    except Exception:  # changed before
        return change_bytes(file, random)
    if not tensors:
        return change_bytes(file, random)
    name = random.choice(sorted(tensors))
    old = tensors[name]
    what = random.choice(
        ["remove", "rename", "foreign", "type", "shape", "empty", "fill", "fill", "grow", "swap", "none", "row"]
    )
    if what == "remove":
        del tensors[name]
    elif what == "rename":
        tensors[name + random.choice(("x", ".weight", ""))[::-1]] = tensors.pop(name)
    elif what == "foreign":
        tensors[random.choice(("foreign", f"{name}.foreign", "", ".", "a" * 3000))] = old.clone()
    elif what == "type":
        tensors[name] = old.to(random.choice(DTYPES))
    elif what == "shape":
        tensors[name] = random.choice([old.reshape(-1), old[None], old.flatten()[:1].reshape(())]).clone()
    elif what == "empty":
        tensors[name] = old.flatten()[:0].reshape(random.choice(((0,), (0, 1 << 40), (1 << 40, 0))))
    elif what == "fill":
        value = random.choice((float("nan"), float("inf"), 1e30, -1.0, 1e9, 0.0))
        whole = 0 if old.is_floating_point() else random.choice((-1, 1 << 30, 127, 255))
        tensors[name] = torch.full_like(
            old,
            value
            if old.is_floating_point()
            else whole % 2
            if old.dtype == torch.bool
            else whole % 256
            if old.dtype == torch.uint8
            else whole,
        )
    elif what == "grow":
        tensors[name] = torch.cat([old, old]) if old.dim() else old.expand(2).clone()
    elif what == "swap":
        other = random.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other], tensors[name]
    elif what == "row":
        tensors[name] = old[:-1].clone() if old.dim() else old + 1
    else:
        tensors = {}
    file.write_bytes(save({k: v.contiguous().clone() for k, v in tensors.items()}))
    return f"{name} {what}"


# ----------------------------------------------------------------------------------------------------------- hashes


def correct_hashes(run: Path) -> None:
    """Write every list of hashes again, as far as the files are still there."""

    def digest(file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "0" * 64

    for weights in run.glob("*.safetensors"):
        if (sums := weights.with_suffix(".sha256")).is_file():
            sums.write_text(digest(weights) + "\n")
    base, record = run / "base.safetensors", run / "run.json"
    if base.is_file() and record.is_file():
        text = record.read_bytes()
        record.write_bytes(re.sub(rb'"base_sha256": "[0-9a-f]{64}"', f'"base_sha256": "{digest(base)}"'.encode(), text))
    for sums in (*run.glob("checkpoints/*/SHA256SUMS"), run / "SHA256SUMS"):
        if not sums.is_file():
            continue
        listed = re.findall(r"^[0-9a-f]{64}  (.+)$", sums.read_text("utf-8", "replace"), re.M)
        names = [n for n in listed if (sums.parent / n).is_file()]
        sums.write_text("".join(f"{digest(sums.parent / n)}  {n}\n" for n in names))


def copied(run: Path, to: Path) -> Path:
    """A copy of a run in place of what is there."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(run, to, copy_function=shutil.copyfile))
