"""What every test process has in common: one thread, no accelerator and no network, whatever the machine has.

`make test` runs as many processes as there are cores to use, so that a second thread in each would only wait.
"""

from __future__ import annotations

import os

os.environ |= {  # before torch is imported; processes that tests start inherit it
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
