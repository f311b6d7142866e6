"""What a run makes for others to see: with which credentials it is marked and signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afresh.core.verb import Result, Verb
from afresh.data.preferences import preferences
from afresh.engine.sampling.credentials import HASH, Credentials
from afresh.runs.content_hash import content_hash
from afresh.runs.kept_encoders import keep_encoder
from afresh.runs.run import Run


def credentials_of(run: Run) -> Credentials | None:
    """What works of a run are marked and signed with; None where they are not to be (`Run.marked`, and the user's
    preference `mark_works`). Raises UserError if they cannot be signed."""
    if not (run.marked and preferences().mark_works):
        return None
    kind = run.encoder.kind
    digest = content_hash(run)
    found = Credentials(HASH + digest, run.path.name, run.record.family, kind.name, kind.medium)
    if run.encoder.abilities.texts is not None:
        keep_encoder(run.path / "encoder", digest, run.path.name, run.record.modality)
    return found


def settings_of_works(run: Run, values: Mapping[str, Any]) -> Any:
    """`Run.settings` for what others may get to see: texts are marked while they are drawn."""
    settings = run.settings(values)
    marks = "watermark" in type(settings).model_fields and run.encoder.abilities.texts is not None
    if not marks or run.codec is not None or settings.watermark is not None:
        return settings
    credentials = credentials_of(run)
    return settings if credentials is None else settings.model_copy(update={"watermark": credentials.watermark})


def signed_files(verb: Verb[Any, Any], run: Run, result: Result) -> dict[str, bytes]:
    """The files of a result by name, with the signed statements that go beside them where they are works."""
    files, credentials = dict(result.files()), credentials_of(run) if verb.works else None
    return files if credentials is None else credentials.signed_files(files, {"verb": verb.name})
