"""README.md of an ONNX export: inputs, output, and a NumPy program that samples with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """import json

import numpy as np
import onnxruntime

about = json.load(open("model.json", encoding="utf-8"))
session = onnxruntime.InferenceSession("model.onnx")
rng, n = np.random.default_rng(0), 4
"""
DRAWS = {"normal": "rng.standard_normal", "uniform": "rng.random"}
STEPS = """v = lambda x, t: session.run(None, {{"x": x, "t": np.full(n, t, np.float32), **cond}})[0]
x, steps = rng.standard_normal((n, *{shape}), dtype=np.float32), {steps}
for i in range(steps):  # Heun's rule, from noise at t = 0 to data at t = 1
    t, h = i / steps, np.float32(1 / steps)
    a = v(x, t)
    x = x + h * (a + v(x + h * a, t + 1 / steps)) / 2
"""
JUMPS = """x, steps = rng.standard_normal((n, *{shape}), dtype=np.float32), {steps}
for i in range(steps):  # from noise at t = 0 to data at t = 1
    t, s = np.full(n, i / steps, np.float32), np.full(n, (i + 1) / steps, np.float32)
    x = x + np.float32(1 / steps) * session.run(None, {{"x": x, "t": t, "s": s, **cond}})[0]
"""
DECODES = """
`x` holds latents. `decoder.onnx` maps `latents`, float32, {}, to samples `x`, {}. The mean and the
standard deviation of each channel of the latents are in that graph: give it x as it is at t = 1.
"""
DECODE = """x = onnxruntime.InferenceSession("decoder.onnx").run(None, {"latents": x})[0]
"""
SAVE_IMAGES = """pixels = np.clip(np.round((x + 1) * 127.5), 0, 255).astype(np.uint8)  # (n, C, H, W)
for i, p in enumerate(pixels):
    Image.fromarray(p[0] if len(p) == 1 else p.transpose(1, 2, 0)).save(f"{i}.png")
"""
SAVE_ARRAYS = """np.save("samples.npy", x)
"""


def guide(about: Mapping[str, Any]) -> str:
    """The text of README.md, from the content of model.json."""
    sample = "an image" if about["bytes"] else "an array of numbers"
    kind = {
        "sample": f"maps random numbers to {sample}",
        "velocity": "maps x at time t to its velocity dx/dt",
        "map": "maps x at time t to its mean velocity until time s",
    }[about["kind"]]
    means = {"normal": "standard normal", "uniform": "uniform in [0, 1)", "time": "0 is noise, 1 is data"}
    rows = [
        f"| `{k}` | {v['type']} | {shown(v['shape'])} | {means[v['draw']] if k != 'x' else 'x at time t'} |"
        for k, v in about["inputs"].items()
    ]
    for name, part in about["conditions"].items():
        value, present = part["value"], part["present"]
        rows.append(f"| `{value['name']}` | {value['type']} | {shown(value['shape'])} | {name}: {part['means']} |")
        rows.append(f"| `{present['name']}` | bool | {shown(present['shape'])} | false: {name} is left open |")
    out, decoder = about["output"], about.get("decoder")
    sizes = [] if decoder is None else [shown(v["shape"]) for v in (decoder["inputs"]["latents"], decoder["output"])]
    return f"""# {about["source"]}

`model.onnx` (opset {about["opset"]}) {kind}. `model.json` holds the classes and scales; it is also in the
metadata of the file. `proof.json` states how the file was compared with the model.

| Input | Type | Shape | |
|---|---|---|---|
{chr(10).join(rows)}

Output: `{out["name"]}`, {out["type"]}, {shown(out["shape"])}{scale(about)}.
{DECODES.format(*sizes) if sizes else ""}
With numpy, onnxruntime{" and pillow" if is_image(about) else ""} installed, this program writes four samples
into the current folder:

```python
{program(about)}```
"""


def program(about: Mapping[str, Any]) -> str:
    """A program that samples, to be run in the export's folder."""
    images, kind = is_image(about), str(about["kind"])
    shape = tuple(about["space"]["shape"])
    steps = {"velocity": STEPS, "map": JUMPS}
    body = steps[kind].format(shape=shape, steps=about["steps"]) if kind in steps else one_pass(about)
    body += DECODE if "decoder" in about else ""
    imported = "import onnxruntime\n"
    head = HEAD.replace(imported, f"{imported}from PIL import Image\n") if images else HEAD
    return f"{head}{condition(about)}{body}{SAVE_IMAGES if images else SAVE_ARRAYS}"


def one_pass(about: Mapping[str, Any]) -> str:
    """The lines that draw the inputs and run the graph once."""
    lines = ["inputs = dict(cond)"]
    for name, value in about["inputs"].items():
        draw = DRAWS.get(value["draw"], "rng.random")
        lines.append(f"inputs[{name!r}] = {draw}((n, *{tuple(value['shape'][1:])}), dtype=np.float32)")
    return "\n".join([*lines, "x = session.run(None, inputs)[0]", ""])


def condition(about: Mapping[str, Any]) -> str:
    """The lines that set the condition: the classes of the first label in turn, all other parts left open."""
    lines = ["cond = {}"]
    first = True
    for part in about["conditions"].values():
        value, present = part["value"], part["present"]
        if part["kind"] == "label" and first:
            first = False
            lines.append(f"cond[{value['name']!r}] = np.arange(n, dtype=np.int64) % {len(part['classes'])}")
            lines.append(f"cond[{present['name']!r}] = np.ones(n, bool)")
        else:
            row = tuple(value["shape"][1:])
            lines.append(f"cond[{value['name']!r}] = np.zeros((n, *{row}), np.{value['type']})")
            lines.append(f"cond[{present['name']!r}] = np.zeros(n, bool)  # left open")
    return "\n".join(lines) + "\n"


def is_image(about: Mapping[str, Any]) -> bool:
    """Whether a sample can be saved as PNG."""
    shape = about.get("decoder", about)["space"]["shape"]
    return bool(about["bytes"]) and len(shape) == 3 and shape[0] in (1, 3)


def scale(about: Mapping[str, Any]) -> str:
    """How to turn the output into bytes, as the end of a sentence."""
    return f"; in bytes {about['bytes']}" if about["bytes"] and about["kind"] == "sample" else ""


def shown(shape: list[Any]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
