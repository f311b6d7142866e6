"""The studio: pages on which a person makes, keeps and looks at what the models of a server draw.

The names in `__all__` are those that pages of domains and of plug-ins are written with; the modules are private."""

from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk, alone
from afresh.faces.studio.answers import Answers
from afresh.faces.studio.controls import controls_of
from afresh.faces.studio.gallery_page import own_folder
from afresh.faces.studio.pages import Name, RunPage, moved, owner_only, page, page_router, stream
from afresh.faces.studio.run_card import runs_on
from afresh.faces.studio.verb_page import verbs_of

__all__ = [
    "Answers",
    "Desk",
    "Name",
    "RefusedRequest",
    "RunPage",
    "Served",
    "alone",
    "controls_of",
    "moved",
    "own_folder",
    "owner_only",
    "page",
    "page_router",
    "runs_on",
    "stream",
    "verbs_of",
]
