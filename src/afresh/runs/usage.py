"""RUN/usage.json: what training a run has used, a session for each command that trained it.

It is written with each checkpoint and at the end, so that a process that is killed loses at most what came after its
last checkpoint. What was trained again after that is counted twice, as it was paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from afresh.core import UserError
from afresh.core.safe_json import read_model
from afresh.data.storage.files import write_json
from afresh.engine.training.usage_meter import Amount, Usage, UsageMeter

FILE = "usage.json"
MOST_SESSIONS = 10_000


class Session(BaseModel):
    """What one command has used. `apart`: the seconds of it that went to something else than steps, as evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    begun: AwareDatetime
    device: str
    usage: Usage
    apart: dict[str, Amount] = {}


class Sessions(BaseModel):
    """The content of usage.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sessions: Annotated[tuple[Session, ...], Field(max_length=MOST_SESSIONS)] = ()


def read_usage(folder: Path) -> tuple[Session, ...]:
    """The sessions of a run; none of one that an earlier version trained. Raises UserError if the file is damaged."""
    file = folder / FILE
    return read_model(file, Sessions, "what a run has used").sessions if file.is_file() else ()


class UsageLog:
    """The session of this process. It is written by `save`."""

    def __init__(self, folder: Path, device: str, meter: UsageMeter) -> None:
        self.file, self.device, self.meter = folder / FILE, device, meter
        self.begun = datetime.now(UTC).replace(microsecond=0)
        self.apart: dict[str, float] = {}
        self.before = read_usage(folder)[-MOST_SESSIONS + 1 :]

    def note(self, kind: str, seconds: float) -> None:
        """Count seconds as those of something else than steps."""
        self.apart[kind] = self.apart.get(kind, 0.0) + seconds

    def save(self) -> None:
        """Raises UserError if the disk is full or not writable."""
        apart: Mapping[str, float] = {kind: round(seconds, 3) for kind, seconds in self.apart.items()}
        now = Session(begun=self.begun, device=self.device, usage=self.meter.read(), apart=dict(apart))
        write_json(self.file, Sessions(sessions=(*self.before, now)).model_dump(mode="json"))


@contextmanager
def usage_log(folder: Path, device: str) -> Iterator[UsageLog]:
    """Counts in the block what is used, and writes it at the end of it, however it ends."""
    log = UsageLog(folder, device, UsageMeter(device))
    try:
        yield log
    except BaseException:
        with suppress(UserError):  # the error of the block is the one to be told
            log.save()
        raise
    log.save()
