"""`python -m benchmarks [name ...]`: run all, or some; those that need data look for it in AFRESH_DATA."""

import os
import sys
from importlib import import_module

NAMES = ("throughput", "decoding", "digits", "shakespeare", "minutes", "stories", "masked", "tune")
NEED_DATA = ("shakespeare", "minutes", "stories", "masked", "tune")

for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"There is no benchmark {name!r}. Choose from: {', '.join(NAMES)}.")
    if name in NEED_DATA and "AFRESH_DATA" not in os.environ:
        print(f"{name}: left out; set AFRESH_DATA to a folder that holds its data", file=sys.stderr)
        continue
    print(f"== {name}", flush=True)
    import_module(f"benchmarks.{name}").main()
