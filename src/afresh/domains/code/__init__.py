"""Source code."""

from afresh.core.plugin import Plugin
from afresh.data.text.languages import BY_SUFFIX

PLUGIN = Plugin(
    items="source code",
    reads="a folder; generated and vendored files are left out and listed",
    enough=(1_000_000, "bytes"),
    suffixes={*BY_SUFFIX, ".txt"},  # CMakeLists.txt
    kinds=("text",),
    modalities={"code": "afresh.domains.code.modality:MODALITY"},
    verbs={"solve": "afresh.domains.code.verbs:solve"},
    metrics=("afresh.domains.code.metrics:METRICS",),
    rewards=("afresh.domains.code.rewards:REWARDS",),
)
