"""Gathering data sets: sources are read, their items cleaned, duplicates found, and what was taken is recorded."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(commands={"collect": "afresh.faces.cli.collect:collect"})
