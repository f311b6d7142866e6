"""`afresh reindex`: the index of what was made in the studio, from its folders."""

from __future__ import annotations

from typing import Annotated

from afresh.cli import options as o
from afresh.cli.show import emit, say


def reindex(as_json: Annotated[bool, o.json_of("{folder, works}")] = False) -> None:
    """Write the index of the studio's gallery anew from the folders of its works, which are the truth.

    Of use after works were copied into the folder or removed from it by hand.
    """
    from afresh.core.plural import counted
    from afresh.preferences import preferences
    from afresh.verbs.gallery import Works

    folder = preferences().works_folder
    count = Works(folder).reindex() if folder.is_dir() else 0
    if as_json:
        emit({"folder": str(folder), "works": count})
    else:
        say(f"{counted(count, 'work')} in {folder}")
