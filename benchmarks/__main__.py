"""`python -m benchmarks [name ...]`: run all, or some; those that need data look for it in AFRESH_DATA."""

import os
import sys
from importlib import import_module

PICTURES = ("fashion", "cifar", "faces", "emoji")
NAMES = (
    "throughput",
    "steps",
    "decoding",
    "digits",
    "shakespeare",
    "validation",
    "minutes",
    "stories",
    "masked",
    "tune",
    "adapters",
    *PICTURES,
    "gan_seeds",
    "guidance",
    "student",
    "bits",
    "steer",
    "steer_exact",
    "sentiment",
    "steer_pictures",
    "pandalm",
    "spoken",
    "small_sounds",
    "sound_codec",
    "collect_extraction",
    "collect",
    "masking",
    "knowledge",
    "recommendations",
    "new_items",
    "off_policy",
    "click_steering",
)
NEED_DATA = tuple(
    n
    for n in NAMES
    if n
    not in (
        "throughput",
        "steps",
        "decoding",
        "digits",
        "steer_exact",
        "collect_extraction",
        "knowledge",
        "off_policy",
        "click_steering",
    )
)


for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"There is no benchmark {name!r}. Choose from: {', '.join(NAMES)}.")
    if name in NEED_DATA and "AFRESH_DATA" not in os.environ:
        print(f"{name}: left out; set AFRESH_DATA to a folder that holds its data", file=sys.stderr)
        continue
    print(f"== {name}", flush=True)
    if name in PICTURES:
        import_module("benchmarks.pictures").run(name)
    else:
        import_module(f"benchmarks.{name}").main()
