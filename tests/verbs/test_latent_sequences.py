"""Models of whole sequences: prompts, variations and what lies between two, by a VAE and over a codec."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

import afresh
from afresh.api import Model
from afresh.core import UserError
from afresh.faces.cli import run as command
from afresh.runs import latent_space

SMALL = {"family.width": 16, "family.blocks": 1, "train.batch": 8}


def listed(first: str, last: tuple[str, ...]) -> str:
    """210 words, one a line."""
    return "\n".join(a + b + c for a in first for b in "aeiou" for c in last)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of short names, which are documents of their own."""
    file = tmp_path_factory.mktemp("names") / "names.txt"
    file.write_text(listed("bdglmn", ("na", "r", "lo", "ti", "s", "dan", "k")))
    return file


@pytest.fixture(scope="module")
def model(names: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("runs") / "vae"
    return afresh.train(names, family="vae", steps=3, out=out, settings=SMALL, quiet=True)


def test_documents_are_learnt_as_records(model: Model) -> None:
    assert model.run.record.codec == "records" and model.run.space.shape == (8,)
    drawn = model.sample(4)
    assert len(drawn) == 4 and all(len(text) <= 8 for text in drawn)


def test_a_prompt_is_continued(model: Model) -> None:
    assert len(model.sample(3, prompt="ba", length=2)) == 3


def test_what_lies_between_two(model: Model) -> None:
    way = model.interpolate("bana", "mitis", 4)
    assert len(way) == 4 and [d["from_first"] for d in way.described] == [1.0, 0.6667, 0.3333, 0.0]
    with pytest.raises(UserError, match="second"):
        model.interpolate("bana", toward="mitis")


def test_variations(model: Model) -> None:
    same = model.edit(["bana"], strength=0.0)
    assert list(same) == ["bana"]
    assert len(model.edit(["bana", "mik"], each=3, strength=0.5)) == 6
    with pytest.raises(UserError, match="strength"):
        model.edit(["bana"], strength=0.5, palette=["red"])
    for wrong, says in (("", "Give texts"), ("bananarama", "11 tokens, and this model reads at most 8")):
        with pytest.raises(UserError, match=says):
            model.edit([wrong], strength=0.5)


def test_the_command_prints_texts(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["blend", str(model.path), "bana", "mik", "-n", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3


@pytest.mark.slow
def test_a_flow_over_the_latents_of_an_autoencoder(names: Path, tmp_path: Path) -> None:
    codec = afresh.train(names, family="autoencoder", steps=3, out=tmp_path / "codec", settings=SMALL, quiet=True)
    with pytest.raises(UserError, match="come back"):
        afresh.train(names, family="flow", codec=codec, steps=3, out=tmp_path / "flow", quiet=True)
    with patch.object(latent_space, "FEWEST_BACK", 0.0):
        settings = {"family.widths": [8], "train.batch": 8}
        flow = afresh.train(
            names, family="flow", codec=codec, steps=3, out=tmp_path / "flow", settings=settings, quiet=True
        )
    assert flow.run.record.codec == "trained_sequences" and flow.run.space.shape == (8, 8)
    assert len(flow.sample(3)) == 3 and len(flow.interpolate("bana", "mik", 3)) == 3
    with pytest.raises(UserError, match="prompt"):
        flow.sample(1, prompt="ba")
    for to in ("onnx", "safetensors"):
        with pytest.raises(UserError, match="codec trained_sequences decodes to tokens"):
            flow.export(to, out=tmp_path / "exported")
    other = tmp_path / "other.txt"
    other.write_text(listed("pqrstu", ("x", "y", "z", "w", "v", "pp", "q")))
    with pytest.raises(UserError, match="tokens"):
        afresh.train(other, family="flow", codec=codec, steps=3, out=tmp_path / "wrong", quiet=True)
