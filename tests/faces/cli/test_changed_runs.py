"""A run whose files were changed, by accident or by somebody, works or says what is wrong in a UserError.

`make fuzz` does the same with 10,000 mutations of runs of every kind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tools.fuzz.mutations import copied, correct_hashes, mutate
from tools.fuzz.verbs import outcome

from afresh.core import UserError
from afresh.core.safe_json import MOST_DEPTH, parse_json
from afresh.runs.data import run_data
from afresh.runs.record import RunRecord, read_record
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.data_source import data_source
from afresh.verbs.report import previews_of
from tests.faces.cli.conftest import Invoke
from tests.heard import heard

MUTATIONS = 100  # of each run


@pytest.mark.parametrize("kind", ["pictures_run", "texts_run"])
@pytest.mark.filterwarnings("ignore")
def test_a_changed_run_works_or_is_refused(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run, outcomes = request.getfixturevalue(kind), []
    for number in range(MUTATIONS):
        changed = copied(run, tmp_path / "run")
        what = mutate(changed, Random(number))
        for verb in ("open", "sample") if number % 2 else ("open",):
            try:
                outcomes.append(outcome(verb, changed))
            except BaseException as e:
                e.add_note(f"mutation {number}, {verb}: {what}")
                raise
    refused = [o for o in outcomes if o != "works"]
    assert len(refused) > 20 and len(outcomes) - len(refused) > 20
    assert all(len(o) < 5000 for o in refused)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(field=st.sampled_from(sorted(RunRecord.model_fields)), value=JSON)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_any_field_of_the_record_is_read_or_refused(texts_run: Path, field: str, value: Any) -> None:
    record = json.loads((texts_run / "run.json").read_bytes())
    try:
        read_record(json.dumps(record | {field: value}).encode())
    except (ValueError, UserError) as e:
        assert str(e)


# ------------------------------------------------------------------------------------------------------ each by name


@pytest.fixture
def changed(texts_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run with other values in run.json, at dotted paths."""

    def make(**values: Any) -> Path:
        out = Path(shutil.copytree(texts_run, tmp_path / "run"))
        record = json.loads((out / "run.json").read_bytes())
        for path, value in values.items():
            *owners, last = path.split("__")
            owner = record
            for name in owners:
                owner = owner[name]
            owner[last] = value
        (out / "run.json").write_text(json.dumps(record))
        correct_hashes(out)
        return out

    return make


@pytest.mark.parametrize(
    "field,value,words",
    [
        ("train__threads", 10**6, "train.threads"),
        ("train__batch", 1 << 40, "train.batch"),
        ("train__lr", float("nan"), "train.lr"),
        ("window", 1 << 40, "window"),
        ("parameters", -1, "parameters"),
        ("config__layers", "many", "config.*layers"),
        ("config__layers", 10**7, "config.*layers.*1024"),
        ("config__width", 10**9, "run.json"),
        ("config__heads", 0, "config.*heads"),
        ("family", "nothing", "nothing"),
        ("modality", [], "modality"),
    ],
)
def test_a_record_beyond_the_run_is_refused_before_anything_is_allocated(
    field: str, value: Any, words: str, changed: Callable[..., Path]
) -> None:
    run = changed(**{field: value})
    with pytest.raises(UserError, match=words):
        _ = Run.open(run).modules
    with pytest.raises(UserError, match=words):
        Run.open(run).learner()


def test_deep_and_large_json_is_refused(texts_run: Path, tmp_path: Path) -> None:
    for content in (b"[" * 100_000 + b"]" * 100_000, b"[" * (MOST_DEPTH + 2) + b"]" * (MOST_DEPTH + 2), b"9" * 5000):
        with pytest.raises(ValueError):
            parse_json(content)
    run = Path(shutil.copytree(texts_run, tmp_path / "run"))
    (run / "run.json").write_bytes(b'{"a":' * 100_000)
    with pytest.raises(UserError, match=r"run\.json.*within each other"):
        Run.open(run)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda s: {"step": 4}, "scalars"),
        (lambda s: [1, 2], "should be an object"),
        (lambda s: s | {"step": 5}, "of step 5"),
        (lambda s: s | {"scalars": s["scalars"] | {"lr_scale": "x"}}, "lr_scale"),
        (lambda s: s | {"scalars": s["scalars"] | {"steps": -3}}, "steps: "),
    ],
)
def test_the_state_of_a_checkpoint_is_validated(
    change: Callable[[Any], Any],
    words: str,
    texts_run: Path,
    tmp_path: Path,
) -> None:
    run = Path(shutil.copytree(texts_run, tmp_path / "run"))
    file = run / "checkpoints" / "000004" / "state.json"
    file.write_text(json.dumps(change(json.loads(file.read_bytes()))))
    correct_hashes(run)
    with pytest.raises(UserError, match=words) as error:
        Run.open(run).learner()
    assert "state.json" in str(error.value)


@pytest.mark.parametrize("what", ["labels", "type", "shape", "rows", "missing", "size", "cut"])
def test_conditions_are_validated(what: str, pictures_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pictures_run, tmp_path / "run"))
    file = run / "conditions.safetensors"
    tensors = load_file(file)
    labels = tensors["parts.label"]
    values = {
        "labels": {"parts.label": labels + 10},
        "type": {"parts.label": labels.float()},
        "shape": {"parts.label": labels[:, None].contiguous()},
        "rows": {"parts.label": labels[1:].contiguous()},
        "missing": {},
        "size": {"size": torch.tensor(1 << 40)},
        "cut": {},
    }
    if what == "missing":
        del tensors["present.label"]
    save_file(tensors | values[what], file)
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"conditions\.safetensors"):
        _ = Run.open(run).conditions


def test_a_line_of_metrics_that_holds_something_else_is_named(texts_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(texts_run, tmp_path / "run"))
    good = metrics_rows(Run.open(run))
    file = run / "metrics.jsonl"
    text = file.read_text()
    file.write_text(text + '{"step": 5, "sec')
    assert metrics_rows(Run.open(run)) == good, "a crash may have cut the last line short"
    for line in ('{"step": 5, "seconds": 1, "loss": "low"}', '{"step": -1, "seconds": 1}', "[]", '{"seconds": 1}'):
        file.write_text(f"{text}{line}\n")
        with pytest.raises(UserError, match=rf"metrics\.jsonl, line {len(good) + 1}"):
            metrics_rows(Run.open(run))


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(20)])
def test_a_damaged_preview_is_said(content: bytes, pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = Path(shutil.copytree(pictures_run, tmp_path / "run"))
    file = run / "samples" / "000004.png"
    file.write_bytes(content)
    code, _, err = invoke("show", run)
    assert code == 0 and "000004.png cannot be shown" in err
    with heard() as events:
        assert previews_of(Run.open(run)) == []
    assert any("000004.png is damaged" in e.text for e in events)


def test_weights_to_which_nothing_can_be_fitted_are_said(pictures_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(*_: Any) -> Any:
        raise torch.linalg.LinAlgError("the input is not positive-definite")

    run = Run.open(pictures_run)
    source = data_source(run, run_data(run))
    monkeypatch.setitem(run.__dict__, "family", replace(run.family, finish=finish))
    with pytest.raises(UserError, match=r"flow cannot be fitted after training .*positive-definite"):
        source.finish(run.learner())
