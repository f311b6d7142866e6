"""Fields of physical systems in time."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin()
