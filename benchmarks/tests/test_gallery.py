"""The gallery shows every kind of data and family, and says of each model what it is."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from afresh.core import registry
from benchmarks.common.folders import write_json
from benchmarks.gallery import gallery
from benchmarks.gallery.data import SOURCES, source_of

VAE = gallery.Exhibit(
    *("image", "vae", "drawings of a script", 1080, 10.0, 601.0, "EPYC, 2 cores", 870_000, 500),
    *("blurred", "The images are blurred.", "![The first 24 samples](gallery/image-vae-grid.png)"),
)


def test_every_kind_and_family_is_shown() -> None:
    """But those that are part of another model, or begin with public weights; and what single samples show nothing of:
    fields are rolled out, series forecast, tables compared row by row."""
    shown_kinds = set(registry.own_modalities()) - {"field", "series", "table"}
    assert set(gallery.FAMILIES) == shown_kinds == set(SOURCES) == set(gallery.TITLES)
    shown = {family for families in gallery.FAMILIES.values() for family in families}
    begun = {name for name in registry.FOREIGN if registry.family(name).made_by == "tune"}
    assert shown == {*registry.FAMILIES, *registry.FOREIGN} - {"autoencoder"} - begun


def test_what_a_script_makes_takes_the_place_of_data_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFRESH_DATA", raising=False)
    absent = [kind for kind in SOURCES if source_of(kind) is None]
    assert absent == ["music", "molecule"]
    shop = source_of("interactions")
    assert shop is not None
    rows = (shop.written(tmp_path / "shop") / "shop.csv").read_text().splitlines()
    assert rows[0] == "customer,product,date"
    assert len({row.partition(",")[0] for row in rows[1:]}) == 600


def test_a_sound_is_cut_and_can_be_played_and_reached(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(10 * 8000) / 20), 8000)
    html = gallery.player(tmp_path / "a.wav", tmp_path / "audio-gan-0.mp3")
    assert html.count("gallery/audio-gan-0.mp3") == 2
    assert soundfile.info(tmp_path / "audio-gan-0.mp3").duration == pytest.approx(gallery.SECONDS, abs=0.2)


def test_the_page_says_data_minutes_machine_and_verdict(tmp_path: Path) -> None:
    (tmp_path / "exhibits").mkdir()
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "image-vae-grid.png").write_bytes(b"picture")
    for made in (VAE, replace(VAE, kind="text", samples="```text\nOnce\n```")):
        write_json(tmp_path / "exhibits" / f"{made.name}.json", asdict(made))
    gallery.write_page(tmp_path, tmp_path / "docs" / "gallery.md")
    page = (tmp_path / "docs" / "gallery.md").read_text()
    assert "1,080 of drawings of a script; 10 minutes (601 s) on EPYC, 2 cores" in page
    assert "**blurred**: The images are blurred." in page
    assert page.index("## Images") < page.index("## Texts")
    assert (tmp_path / "docs" / "gallery" / "image-vae-grid.png").read_bytes() == b"picture"


def test_a_page_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exhibits").mkdir()
    write_json(tmp_path / "exhibits" / f"{VAE.name}.json", asdict(VAE))
    monkeypatch.setattr(gallery, "LARGEST", 100)
    with pytest.raises(SystemExit, match="at most 100 are kept"):
        gallery.write_page(tmp_path, tmp_path / "docs" / "gallery.md")
    assert not (tmp_path / "docs").exists()
