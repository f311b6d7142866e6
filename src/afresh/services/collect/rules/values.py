"""The values that rules take, as pydantic checks them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import BeforeValidator

Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(0)]
Amount = Annotated[float, Ge(0)]
# Names that commas separate on the command line.
Names = Annotated[
    list[str], BeforeValidator(lambda v: [n for n in map(str.strip, v.split(",")) if n] if isinstance(v, str) else v)
]
Decibels = Annotated[float, Ge(-200), Le(0)]
