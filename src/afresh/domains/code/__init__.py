"""Source code."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    items="source code",
    reads="a folder; generated and vendored files are left out and listed",
    modalities={"code": "afresh.domains.code.modality:MODALITY"},
    verbs={"solve": "afresh.domains.code.verbs:solve"},
    metrics=("afresh.domains.code.metrics:METRICS",),
    rewards=("afresh.domains.code.rewards:REWARDS",),
)
