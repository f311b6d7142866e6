"""What a person can say of how fields are read, where it is not in the data or not to be as it is there."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ReadingOptions(BaseModel):
    """How fields are read. Whatever is None is worked out from the data, and what was worked out is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    axes: tuple[str, ...] | None = Field(
        None,
        description="what the axes of the array are, in its order: sample, time, channel, and names of space, as "
        "sample,time,channel,x,y",
    )
    channels: tuple[str, ...] | None = Field(None, description="the arrays or channels to learn, by name")
    static: tuple[str, ...] | None = Field(None, description="the arrays that are inputs which do not change in time")
    parameters: tuple[str, ...] | None = Field(None, description="the arrays that hold numbers of each trajectory")
    spacing: tuple[float, ...] | None = Field(
        None, description="distance of neighbouring points: one number, or one for each axis of space"
    )
    step: float | None = Field(
        None, gt=0, description="time between states; states are taken in their order, whatever their times"
    )
    periodic: tuple[Literal["yes", "no"], ...] | None = Field(
        None, description="whether space is periodic: yes or no, or one for each of its axes, as yes,no"
    )
    missing: Literal["refuse", "mask"] = Field(
        "refuse", description="of values that are missing: refuse the data, or mask points that are always missing"
    )
    fill: tuple[float, ...] | None = Field(
        None,
        description="numbers that stand for missing values, as -9999; None: those that the file declares; nan: none",
    )
