"""Without the package for C2PA works get sidecars, and what cannot be done is said with what to install."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from afresh.core import UserError
from afresh.provenance import needs
from afresh.provenance.layers import Status
from afresh.provenance.read import read
from afresh.provenance.sign_work import signed_work
from tests.provenance.conftest import content_of, facts


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name == package else find_spec(name))


@pytest.mark.parametrize("package", ["c2pa", "cbor2"])
def test_sidecars_need_cryptography_alone(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(".png")
    embedded = signed_work(content, "a.png", facts())
    without(package, monkeypatch)
    signed = signed_work(content, "a.png", facts())
    assert signed.content == content
    assert read(content, signed.sidecar).status is Status.VALID
    with pytest.raises(UserError, match=r"pip install 'afresh\[provenance\]'"):
        read(embedded.content)
    assert read(content).status is Status.NOTHING


def test_without_cryptography_nothing_is_signed_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    without("cryptography", monkeypatch)
    for work in (lambda: signed_work(b"words", "a.txt", facts()), lambda: read(b"words")):
        with pytest.raises(UserError, match=r"of which cryptography is not installed"):
            work()
