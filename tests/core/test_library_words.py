"""Words of libraries become plain ones wherever an error quotes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

from afresh.core import UserError
from afresh.core.library_words import in_plain_words
from tests.plain import assert_plain


class Settings(BaseModel, extra="forbid"):
    count: int = Field(1, ge=1, le=9)
    rate: float = Field(0.5, gt=0, lt=1)
    sure: bool = False
    name: str = "a"
    parts: dict[str, int] = {}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"count": "many"}, "it should be a whole number"),
        ({"count": 1.5}, "it should be a whole number"),
        ({"count": 0}, "it should be at least 1"),
        ({"count": 10}, "it should be at most 9"),
        ({"rate": 0}, "it should be above 0"),
        ({"rate": 1}, "it should be below 1"),
        ({"rate": "x"}, "it should be a number"),
        ({"sure": "perhaps"}, "it should be true or false"),
        ({"name": 3}, "it should be a text"),
        ({"parts": []}, "it should be an object"),
        ({"more": 1}, "it is not known here"),
    ],
)
def test_faults_of_settings_are_said_in_plain_words(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as error:
        Settings(**given)  # type: ignore[arg-type]
    assert in_plain_words(error.value.errors()[0]["msg"]) == says
    assert_plain(str(UserError(f"It is not accepted: {error.value}")))


def test_an_error_of_the_system_loses_its_number_and_keeps_its_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        tmp_path.read_bytes()
    assert str(UserError(f"{tmp_path} cannot be read: {error.value}. Give a file.")) == (
        f"{tmp_path} cannot be read: is a directory. Give a file."
    )
    with pytest.raises(OSError) as error:
        (tmp_path / "a.txt").rename(tmp_path / "b" / "c.txt")
    assert_plain(message := str(UserError(f"Not moved ({error.value}).")))
    assert message == "Not moved (no such file or directory)."
