"""`--stop`, `--logprobs`, `--stream` and `--set weights`, and the same from Python."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import afresh
from afresh.core import Batch, Cond, UserError
from afresh.core.rng import Rng
from afresh.engine.sampling.constrained import structure
from afresh.verbs.cursor import Hole, complete_hole
from tests import needs
from tests.faces.cli.conftest import Invoke, drawn, parsed
from tests.heard import heard

TEXT = ("--prompt", "the c", "--length", 24, "--seed", 3)


def test_a_text_ends_before_a_stop_string(texts_run: Path, invoke: Invoke) -> None:
    """At any temperature, and the others of the batch are as they were."""
    for warm in (("--temperature", 0), ()):
        argv = ("sample", texts_run, "-n", 6, *TEXT, *warm, "--json")
        free = drawn(invoke(*argv)[1])
        first = free[0]["text"]
        stop, other = first[9:12], first[17:19]
        code, printed, _ = invoke(*argv, "--stop", stop, "--stop", other, "--stop", "never met")
        assert code == 0
        for r, f in zip(drawn(printed), free, strict=True):
            ends = [f["text"].find(s) + len(s) for s in (stop, other) if s in f["text"]]
            whole = f["text"][: min(ends)] if ends else f["text"]
            assert r["text"] == (whole.removesuffix(stop) if whole.endswith(stop) else whole.removesuffix(other))
            assert r["finish"] == ("stop" if ends else f["finish"])
        assert {f["finish"] for f in free} <= {"end", "length"}


@needs.kernels
def test_log_probabilities_are_those_of_training(texts_run: Path) -> None:
    """Each equals the full forward within 1e-4 nats, and their sum the family's score; whatever was cut."""
    model = afresh.load(texts_run)
    run = model.run
    how: dict[str, Any] = {"prompt": "the c", "length": 20, "seed": 3, "weights": "float32"}
    made = model.sample(5, **how, logprobs=True, stop="zz", top_k=9, temperature=0.7)
    plain = model.sample(5, **how, top_k=9, temperature=0.7)
    assert torch.equal(made.x, plain.x) and made.values == plain.values, "to look changes nothing"
    assert all(w.tokens is None for w in plain.written)
    begin = [run.space.special["end"], *run.encoder.encode([afresh.core.Item("the c")]).x[:-1].tolist()]
    for value, written in zip(made.values, made.written, strict=True):
        assert written.tokens is not None
        assert "".join(t.text for t in written.tokens) == value
        x = torch.tensor([begin + [t.id for t in written.tokens]])
        found = torch.tensor([t.logprob for t in written.tokens])
        exact = run.modules["decoder"](x[:, :-1], None).log_softmax(-1)[0]
        exact = exact.gather(1, x[0, 1:, None])[len(begin) - 1 :, 0]
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)
        counted = (torch.arange(x.shape[1] - 1) >= len(begin) - 1)[None]
        batch = Batch(x, Cond(1), torch.zeros(1, dtype=torch.int64), counted)
        assert run.family.likelihood is not None
        total = run.family.likelihood.score(run.modules, run.config, run.space, batch, Rng(0))
        torch.testing.assert_close(found.sum(), total[0], rtol=0, atol=1e-3)


def test_log_probabilities_go_into_records_and_tables(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    argv = ("sample", texts_run, "-n", 2, *TEXT, "--logprobs")
    records = drawn(invoke(*argv, "--json")[1])
    for r in records:
        assert all(set(t) == {"text", "id", "logprob"} and t["logprob"] <= 0 for t in r["logprobs"])
        assert "".join(t["text"] for t in r["logprobs"]) == r["text"]
        assert len(r["logprobs"]) == 24 if r["finish"] == "length" else r["logprobs"][-1]["text"] == ""
    assert invoke(*argv, "--out", tmp_path)[0] == 0
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 2
    shown = invoke(*argv)[1]
    assert "log-probability" in shown and f"{records[1]['logprobs'][3]['logprob']:.4f}" in shown


def test_a_stream_is_the_text(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    text = drawn(invoke("sample", texts_run, "-n", 1, *TEXT, "--json")[1])[0]["text"]
    code, printed, _ = invoke("sample", texts_run, *TEXT, "--stream", "--out", tmp_path / "out")
    assert code == 0 and printed == f"the c{text}\n"
    code, printed, err = invoke("sample", texts_run, *TEXT, "--stream", "--json", "--stop", text[5:8])
    (record,) = drawn(printed)
    assert record["text"] == text[: text.find(text[5:8])] and record["finish"] == "stop"
    assert err == f"the c{record['text']}\n", "the stop string is not shown"


def test_a_stream_from_python(texts_run: Path) -> None:
    run = afresh.load(texts_run)
    whole = run.sample(1, prompt="the c", length=24, seed=3)
    stream = run.stream("the c", length=24, seed=3, logprobs=True)
    pieces = list(stream)
    assert len(pieces) > 10 and "".join(pieces) == whole.values[0]
    assert stream.samples is not None and stream.samples.values == whole.values
    assert torch.equal(stream.samples.x, whole.x) and len(stream.samples.written[0].tokens or ()) == 24
    with pytest.raises(UserError, match="read only once"):
        list(stream)
    with pytest.raises(UserError, match="does not know steps"):
        run.stream("the c", steps=4)


def test_whoever_leaves_a_stream_ends_it(texts_run: Path) -> None:
    before, model = threading.active_count(), afresh.load(texts_run)
    endless = {model.run.space.special["end"]: -100.0}  # else it may have ended before this thread is awake
    stream = model.stream("the c", length=100_000, seed=3, logit_bias=endless)
    for _ in stream:
        break
    assert threading.active_count() == before and stream.samples is None


def test_what_fails_while_drawing_reaches_the_reader(texts_run: Path) -> None:
    def watch(index: int, token: int, logprob: float, top: object) -> bool:
        raise UserError("enough")

    with pytest.raises(UserError, match="enough"):
        list(afresh.load(texts_run).stream("the c", watch=watch))


def test_a_structure_that_a_stop_string_cuts_is_said_to_be(texts_run: Path) -> None:
    run = afresh.load(texts_run)
    must = structure(run.run.family, run.run.encoder, regex="(cat )*mat")
    made = run.sample(6, constraint=must, stop="never", seed=1, length=40)
    assert all(re.fullmatch("(cat )*mat", v) for v in made.values)
    with heard("of 6 texts were cut at a stop string"):
        made = run.sample(6, constraint=must, stop="at", seed=1, length=40)
    assert set(made.values) == {"c", "m"}


def test_completions_end_before_a_stop_string(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    run, hole = afresh.load(texts_run), Hole("the cat", "")
    free = complete_hole(run.run, hole, 4, seed=2, length=12).completions
    stop = free[1].text[4:6]
    cut = complete_hole(run.run, hole, 4, seed=2, length=12, stop=stop).completions
    assert [c.text for c in cut] == [c.text.split(stop)[0] for c in free]
    assert [c.ended for c in cut] == [stop in c.text or c.ended for c in free] and cut[1].ended
    file = tmp_path / "a.txt"
    file.write_text("the cat")
    argv = ("complete", run.path, file, "--line", 1, "--column", 8, "-n", 4, "--seed", 2, "--length", 12, "--json")
    code, printed, _ = invoke(*argv, "--stop", stop)
    assert code == 0 and [c["text"] for c in parsed(printed)["completions"]] == [c.text for c in cut]


@needs.kernels
def test_weights_of_a_precision(texts_run: Path, invoke: Invoke) -> None:
    argv = ("sample", texts_run, "-n", 2, *TEXT, "--logprobs", "--json", "--set")
    found = {k: drawn(invoke(*argv, f"weights={k}")[1]) for k in ("auto", "float32", "bfloat16", "int8")}
    first = {k: v[0]["logprobs"][0]["logprob"] for k, v in found.items()}
    assert found["auto"] == found[afresh.load(texts_run).run.record.train.precision]
    assert len({first[k] for k in ("float32", "bfloat16", "int8")}) == 3
    assert all(abs(v - first["float32"]) < 0.05 for v in first.values())


def test_weights_without_an_engine_are_refused(
    texts_run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afresh.engine.nets.decoding.engine_of", lambda net, kind: None)
    assert invoke("sample", texts_run, *TEXT)[0] == 0
    code, _, err = invoke("sample", texts_run, *TEXT, "--set", "weights=int8")
    assert code == 2 and "weights=int8 needs a CPU" in err


@pytest.mark.parametrize(
    ("which", "asked", "said"),
    [
        ("words", ("--stop", ""), "stop string is empty"),
        ("words", ("--stream", "-n", 2), "-n 2 are drawn side by side"),
        ("words", ("--set", "weights=int4"), "weights.*'auto', 'float32', 'bfloat16' or 'int8'"),
        ("masked", ("--stop", "a"), r"masked does not write from left to right.*\(stop\).*train a transformer"),
        ("masked", ("--logprobs",), r"\(logprobs\)"),
        ("masked", ("--stream",), r"\(stream\)"),
        ("masked", ("--set", "weights=int8"), "masked does not know weights"),
        ("pictures", ("--stop", "a"), "stop applies to texts; this model does not make texts"),
        ("pictures", ("--logprobs", "--stream"), "logprobs, stream"),
        ("pictures", ("--set", "weights=int8"), "flow does not know weights"),
    ],
)
def test_what_means_nothing_is_refused(
    texts_run: Path, masked_run: Path, pictures_run: Path, invoke: Invoke, which: str, asked: tuple[str, ...], said: str
) -> None:
    run = {"words": texts_run, "masked": masked_run, "pictures": pictures_run}[which]
    code, printed, err = invoke("sample", run, *asked)
    assert code == 2 and printed == "" and re.search(said, " ".join(err.split()))


def test_the_records_of_masked_say_nothing_of_an_end(masked_run: Path, invoke: Invoke) -> None:
    assert "finish" not in drawn(invoke("sample", masked_run, "-n", 1, "--length", 4, "--json")[1])[0]
