"""Licences: their normal form, what is refused, and the table of which licence of a model agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.services.collect.gather import place_of
from afresh.services.collect.licences import (
    TABLE,
    duties,
    hub_name,
    normalised,
    normalised_or_unknown,
    objection,
    terms_of,
)
from afresh.services.collect.process import process
from afresh.services.collect.record import About, Found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mit", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("mit or apache-2.0", "Apache-2.0 OR MIT"),
        ("MIT AND MIT", "MIT"),
        ("odc-by", "ODC-By-1.0"),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", "GPL-2.0-or-later WITH Classpath-exception-2.0"),
        ("LicenseRef-of-our-club", "LicenseRef-of-our-club"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("NOASSERTION", "unknown"),
    ],
)
def test_a_licence_has_one_form(given: str, expected: str) -> None:
    assert normalised(given) == expected
    assert normalised(normalised(given)) == expected


@pytest.mark.parametrize(("given", "near"), [("Apach-2.0", "Apache-2.0"), ("CC-BY-SA", "CC-BY-SA"), ("MIT AND", "MIT")])
def test_what_is_no_licence_is_refused_with_the_nearest(given: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"is not an SPDX licence. Did you mean {near}") as found:
        normalised(given)
    assert found.value.code == "no_licence"
    assert normalised_or_unknown(given) == "unknown"


@pytest.mark.parametrize(
    ("data", "model", "agrees"),
    [
        ("CC0-1.0", "Apache-2.0", True),
        ("MIT", "CC-BY-NC-4.0", True),
        ("CC-BY-4.0", "MIT", True),
        ("CC-BY-SA-4.0", "MIT", False),
        ("CC-BY-SA-4.0", "CC-BY-SA-4.0", True),
        ("CC-BY-SA-3.0", "CC-BY-SA-4.0", True),
        ("CC-BY-SA-4.0", "CC-BY-SA-3.0", False),
        ("CC-BY-NC-4.0", "Apache-2.0", False),
        ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", True),
        ("CC-BY-ND-4.0", "CC-BY-4.0", False),
        ("CC-BY-NC-ND-4.0", "CC-BY-NC-4.0", False),
        ("GPL-3.0-only", "AGPL-3.0-only", True),
        ("GPL-2.0-only", "GPL-3.0-only", False),
        ("GPL-2.0-or-later", "GPL-3.0-only", True),
        ("ODbL-1.0", "MIT", False),
        ("GPL-3.0-only OR MIT", "Apache-2.0", True),
        ("GPL-3.0-only AND MIT", "Apache-2.0", False),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", "MIT", False),
        ("MIT", "Apache-2.0 OR MIT", True),
        ("CC-BY-SA-4.0", "CC-BY-SA-4.0 OR MIT", False),
    ],
)
def test_the_table_of_models(data: str, model: str, agrees: bool) -> None:
    assert (objection(normalised(data), normalised(model)) is None) == agrees


def test_a_licence_that_the_table_does_not_have_is_not_guessed() -> None:
    assert objection("LicenseRef-mine", "MIT") == "LicenseRef-mine is not in the table"
    assert objection("LicenseRef-mine", "LicenseRef-mine") == "LicenseRef-mine is not in the table"


def test_every_licence_allows_itself_unless_it_allows_no_changed_version() -> None:
    allowed = {m for _, terms in TABLE for m in terms.models or ()}
    assert allowed == {normalised(m) for m in allowed}
    for name in allowed:
        assert terms_of(name) is not None and objection(name, name) is None, name


def test_what_licences_ask_for() -> None:
    assert duties("CC0-1.0") == ()
    assert duties("CC-BY-NC-SA-4.0") == ("attribution", "share-alike", "non-commercial use")
    assert duties("CC0-1.0 OR GPL-3.0-only") == ()
    assert duties("CC-BY-NC-4.0 AND MIT") == ("attribution", "non-commercial use")
    assert duties("unknown") == ()


def test_a_source_that_states_no_licence_of_spdx_is_unknown_and_keeps_what_it_said() -> None:
    said = [About(licence=text, licence_from="a table") for text in ("mit", "ask me first", "unknown")]
    records = process("s", [Found(str(i), "A text.", about=about) for i, about in enumerate(said)], {}).records
    assert [(r.about.licence, r.about.licence_from) for r in records] == [
        ("MIT", "a table"),
        ("unknown", "a table: ask me first"),
        ("unknown", "a table"),
    ]


def test_what_is_said_of_a_whole_source_is_checked_before_it_is_read(tmp_path: Path) -> None:
    assert place_of(str(tmp_path), about={"licence": "cc0-1.0"}).about == {"licence": "CC0-1.0"}
    with pytest.raises(UserError, match=r"Did you mean CC0-1\.0"):
        place_of(str(tmp_path), about={"licence": "CC0-1"})


def test_names_of_the_hub() -> None:
    names = ["CC0-1.0", "ODC-By-1.0", "GPL-3.0-or-later", "LicenseRef-mine", "unknown", "Apache-2.0 OR MIT"]
    assert [hub_name(n) for n in names] == ["cc0-1.0", "odc-by", "gpl-3.0", "other", "unknown", "other"]
