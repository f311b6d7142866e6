"""A catalogue of models, adapters, data sets and works: kept in a folder of one's own, published as a static site.

`folder.Catalogue` is the folder, `site.publish` makes the pages, and `orders` releases what was paid for elsewhere,
with a line for each in `ledger.Ledger`. Nothing here sells: a listing is bought through the link of a payment service.
Design: docs/development/design/0022-catalogue.md.
"""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(commands={"catalogue": "afresh.faces.cli.catalogue:CATALOGUE"})
