"""On a machine for which the package for C2PA has no build, works get sidecars."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from afresh.core import UserError
from afresh.services.provenance import formats
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from afresh.services.provenance.sign_work import signed_work
from tests.services.provenance.conftest import content_of, facts


def test_without_c2pa_works_get_sidecars(monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(".png")
    embedded = signed_work(content, "a.png", facts())
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "c2pa" else find_spec(name))
    signed = signed_work(content, "a.png", facts())
    assert signed.content == content
    assert read(content, signed.sidecar).status is Status.VALID
    with pytest.raises(UserError, match="pip install c2pa-python"):
        read(embedded.content)
    assert read(content).status is Status.NOTHING
