"""The demonstration: data sets made on the spot, three trainings and a page that shows them."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(commands={"demo": "afresh.faces.cli.demo:demo"})
