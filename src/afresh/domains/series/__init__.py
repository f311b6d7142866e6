"""Series of numbers over time: forecasts, scenarios and filled gaps, each with its uncertainty."""

from afresh.core.plugin import Plugin
from afresh.data.tables import SUFFIXES

PLUGIN = Plugin(
    items="series",
    reads="tables with a column of times and columns of numbers: CSV, TSV, Parquet, spreadsheets, JSON lines",
    enough=(0, "items"),
    suffixes=SUFFIXES,
    kinds=("series",),
    modalities={"series": "afresh.domains.series.modality:MODALITY"},
    metrics=("afresh.domains.series.metrics:METRICS",),
    pages=("afresh.domains.series.page:PAGE",),
    verbs={
        "anomalies": "afresh.domains.series.verbs:anomalies",
        "forecast": "afresh.domains.series.verbs:forecast",
        "fill": "afresh.domains.series.verbs:fill",
    },
)
