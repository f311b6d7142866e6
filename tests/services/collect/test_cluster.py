"""A Ray cluster gives the same data set as one process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.services.collect import gather as module
from afresh.services.collect.gather import gather, place_of
from tests.ray_machines import patient
from tests.services.collect.test_near import edited, image_file, prose, scene, written


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    files: dict[str, bytes | str] = {f"{i}.txt": prose(i) for i in range(20)}
    files |= {f"x{i}.txt": edited(prose(i)) for i in range(4)} | {f"{i}.png": image_file(scene(i)) for i in range(4)}
    return written(tmp_path / "mixed", files)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_local_cluster_gives_the_same(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 14)
    one = gather([place_of(str(mixed))], tmp_path / "one")
    with patient():
        ray = gather([place_of(str(mixed))], tmp_path / "ray", processes=2, cluster="local")
    assert ray["digest"] == one["digest"] and ray["items"] == {"text": 20, "image": 4}


def test_a_cluster_that_is_not_there_is_refused(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install 'afresh\\[cluster\\]'"):
        gather([place_of(str(mixed))], tmp_path / "set", cluster="local")
