"""Where a work comes from: signed metadata of what was generated, and reading it.

`sign_work.signed_work` is what writes a work calls, `read.read` is what asks for one. A work in a format of `formats`
carries a C2PA manifest; beside a work in another lies a signed sidecar. Design:
docs/development/design/0020-provenance.md.
"""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    commands={"verify": "afresh.faces.cli.verify:verify"},
    on_result=("afresh.runs.works:credentials_of",),
)
