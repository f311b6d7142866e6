"""Physical fields in time."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin()
