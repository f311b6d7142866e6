"""What a person can say of how series are read, where it is not in the table or not to be as it is there."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReadingOptions(BaseModel):
    """How series are read. Whatever is None is worked out from the table, and what was worked out is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str | None = Field(None, description="column of the times; None: by its name and values")
    values: tuple[str, ...] | None = Field(
        None, description="columns of numbers to learn; None: all columns of numbers"
    )
    series: tuple[str, ...] | None = Field(
        None, description="columns that tell several series apart; None: worked out if times occur several times"
    )
    known: tuple[str, ...] | None = Field(
        None, description="columns of numbers that are known in advance, as a price or a holiday"
    )
    step: str | None = Field(
        None, description="time between values, as 15min, 1h, 1D, 1W or 1M; None: the most frequent difference"
    )
