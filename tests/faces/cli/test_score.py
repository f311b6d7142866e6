"""`afresh score` and `Model.score`: how likely items are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import afresh
from afresh.core import Cond, Item
from afresh.core.events import Event, listening
from afresh.engine.families.masked import predictor
from afresh.engine.sampling.request import Request
from afresh.verbs.likelihoods import ScoreWindow, items_of, score_items, window_nats, windows_of
from tests.faces.cli.conftest import Invoke, parsed

WORD = "the cat sat"


def model(run: Path) -> afresh.Model:
    return afresh.load(run)


# --------------------------------------------------------------------------- exact


def test_a_score_is_the_probability_with_which_the_text_would_be_drawn(texts_run: Path) -> None:
    """Also of a text that is longer than the context of 32 tokens."""
    run = model(texts_run).run
    likelihood, end = run.family.likelihood, torch.tensor([run.space.special["end"]])
    assert likelihood is not None
    samples = model(texts_run).sample(3, prompt="the cat", logprobs=True, length=90, weights="float32")
    before = torch.cat([end, run.encoder.encode([Item("the cat")]).x[:-1]])
    for written in samples.written:
        assert written.tokens is not None
        ids = torch.cat([before, torch.tensor([t.id for t in written.tokens])])
        windows = windows_of(0, ids, torch.arange(len(ids)) >= len(before), run.space.shape[0])
        scored = torch.cat(list(window_nats(run, likelihood, windows, Cond(1), 0, 0)))
        assert scored.tolist() == pytest.approx([t.logprob for t in written.tokens], abs=1e-3)


def test_the_tokens_of_a_text_are_scored_with_their_texts(texts_run: Path) -> None:
    (whole,) = model(texts_run).score(WORD, logprobs=True)
    (part,) = model(texts_run).score(WORD[4:], prompt=WORD[:4], logprobs=True)
    (open_,) = model(texts_run).score(WORD, end=False)
    assert whole.tokens is not None and part.tokens is not None
    assert "".join(t.text for t in whole.tokens) == WORD
    assert whole.nats == pytest.approx(sum(t.logprob for t in whole.tokens), rel=1e-5)
    logprobs = [t.logprob for t in whole.tokens]
    assert [t.logprob for t in part.tokens] == pytest.approx(logprobs[4:], abs=1e-4)
    assert open_.nats == pytest.approx(sum(logprobs[:-1]), abs=1e-4)


def test_the_probabilities_of_all_continuations_sum_to_one(texts_run: Path) -> None:
    run = model(texts_run).run
    likelihood, (size,) = run.family.likelihood, run.space.vocab
    assert likelihood is not None
    begin = torch.cat([torch.tensor([run.space.special["end"]]), run.encoder.encode([Item("a")]).x[:1]])
    pairs = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    scored = torch.tensor([False, False, True, True])
    windows = [ScoreWindow(0, 0, torch.cat([begin, pair]), scored) for pair in pairs]
    nats = [n.sum() for n in window_nats(run, likelihood, windows, Cond(1), 0, 0)]
    assert float(torch.stack(nats).exp().sum()) == pytest.approx(1, abs=1e-4)


def test_every_token_is_scored_once_and_sees_half_a_context() -> None:
    ids, scored = torch.arange(50), torch.arange(50) > 3
    windows = windows_of(0, ids, scored, 8)
    assert torch.cat([w.ids[w.scored] for w in windows]).tolist() == list(range(4, 50))
    assert all(len(w.ids) <= 9 for w in windows) and [w.number for w in windows] == list(range(len(windows)))
    assert all(int(w.scored.nonzero()[0]) >= 4 for w in windows)


def test_an_item_scores_the_same_alone_and_among_others(texts_run: Path) -> None:
    texts = [WORD, "a mat and a cat slept on the mat " * 3, "on"]
    scores = model(texts_run).score(texts)
    assert scores.kind == "exact" and scores.unit == "token" and len(scores) == 3
    alone = [model(texts_run).score(text)[0].nats for text in texts]
    assert scores.nats == pytest.approx(alone, rel=1e-5)
    assert [s.size for s in scores] == [len(t) + 1 for t in texts], "characters, and the end"
    assert scores.mean == pytest.approx(-sum(scores.nats) / sum(s.size for s in scores))
    assert "longer than the context of 32 tokens" in scores.notes[0] and scores.notes[0].startswith("1 of 3 items")
    assert isinstance(scores[1:], afresh.Scores) and len(scores[1:]) == 2
    assert repr(scores[:1]).startswith("Scores(1 item, exact: exact log-likelihood; ")


# --------------------------------------------------------------------------- bounds


def test_the_bound_of_a_masked_model_is_below_its_likelihood_and_equal_for_one_token(masked_run: Path) -> None:
    run = model(masked_run).run
    ids = run.encoder.encode([Item("ca")]).x[:2].long()
    mask, predict = run.space.vocab[0], predictor(run.modules)

    def log_p(place: int, *known: int) -> float:
        x = torch.full((1, run.space.shape[0] + 1), mask)
        x[0, 0] = run.space.special["end"]
        for k in known:
            x[0, k + 1] = ids[k]
        with torch.no_grad():
            return float(predict(x, None, Cond(1), None)[0][0, place].log_softmax(0)[ids[place]])

    (one,) = model(masked_run).score("c", end=False, draws=3)
    assert one.nats == pytest.approx(log_p(0), abs=1e-4) and one.error == pytest.approx(0, abs=1e-5)
    orders = [log_p(0) + log_p(1, 0), log_p(1) + log_p(0, 1)]
    exact = math.log(sum(map(math.exp, orders)) / 2)
    scores = model(masked_run).score("ca", end=False, draws=200)
    assert scores.kind == "bound" and scores[0].error is not None
    assert scores[0].nats == pytest.approx(sum(orders) / 2, abs=5 * scores[0].error + 1e-4)
    assert scores[0].nats <= exact + 5 * scores[0].error + 1e-4


@pytest.fixture(scope="module")
def fields(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, afresh.Model]:
    made = {}
    for family in ("vae", "gan"):
        out = tmp_path_factory.mktemp("runs") / family
        options = {"train.batch": 16, "train.eval_every": 4, "train.preview_every": 4, "family.width": 8}
        made[family] = afresh.train(digits, family=family, steps=4, out=out, settings=options, quiet=True)
    return made


def test_images_have_bounds_in_bits_per_dimension(
    fields: dict[str, afresh.Model], pictures_run: Path, digits: Path
) -> None:
    paths = [digits / "d0" / "000.png", digits / "d1" / "001.png"]
    for tested in (fields["vae"], model(pictures_run)):
        scores = tested.score(paths, draws=2, label="d0")
        assert scores.kind == "bound" and scores.unit == "dimension" and scores[0].size == 64
        assert scores[0].source == str(paths[0]) and scores[0].error is not None
        bits = scores[0].bits_per_dim
        assert bits is not None and bits == pytest.approx(-scores[0].nats / 64 / math.log(2)) and bits > 0
        again = tested.score(paths[1:], draws=2, label="d0")
        assert again[0].nats == pytest.approx(scores[1].nats, rel=1e-4), "its noise does not depend on the others"
        image = np.full((8, 8, 1), 128, np.uint8)
        assert tested.score(image)[0].nats == pytest.approx(tested.score([image[..., 0]])[0].nats)
    labelled = fields["vae"].score(digits / "d0", label="d0")
    assert len(labelled) > 5 and labelled.nats != fields["vae"].score(digits / "d0", label="d1").nats


# --------------------------------------------------------------------------- bad input


def test_what_cannot_be_scored_is_refused(
    fields: dict[str, afresh.Model], texts_run: Path, masked_run: Path, pictures_run: Path, tmp_path: Path
) -> None:
    text, masked, image = model(texts_run), model(masked_run), model(pictures_run)
    (tmp_path / "empty.txt").write_text("")
    black = np.zeros((8, 8, 1), np.uint8)
    for call, says in (
        (lambda: fields["gan"].score(black), "gan, which has no likelihood.*vae, flow"),
        (lambda: text.score([]), "nothing to score"),
        (lambda: text.score([WORD, ""]), "item 2 is empty"),
        (lambda: text.score(black), "item 1 is a ndarray, but this model makes texts"),
        (lambda: text.score([3]), "item 1 is a int"),
        (lambda: text.score(tmp_path / "no.txt"), "does not exist"),
        (lambda: text.score(tmp_path / "empty.txt"), "is empty"),
        (lambda: text.score("\ud800"), "surrogate"),
        (lambda: image.score([WORD]), "does not exist"),
        (lambda: image.score([3]), "item 1 is a int, but this model makes images"),
        (lambda: image.score(black, prompt="a"), "`prompt` is for texts"),
        (lambda: image.score(black, label="d99"), "d99"),
        (lambda: image.score(black, draws=0), "from 1 to 1,000. Given: 0"),
        (lambda: text.score(WORD, draws=2), "exact log-likelihoods, without noise"),
        (lambda: text.score(WORD, label="cat"), "without labels"),
        (lambda: masked.score(WORD, logprobs=True), "left to right"),
    ):
        with pytest.raises(afresh.UserError, match=says):
            call()


def test_a_condition_that_training_never_left_out_is_missed(pictures_run: Path) -> None:
    run = model(pictures_run).run
    run.record = run.record.model_copy(update={"train": run.record.train.model_copy(update={"cond_dropout": 0.0})})
    heard: list[Event] = []
    with listening(heard.append):
        score_items(run, items_of(run, np.zeros((8, 8, 1), np.uint8)))
        assert [e.code for e in heard] == ["condition_absent"]
        score_items(run, items_of(run, np.zeros((8, 8, 1), np.uint8)), replace(Request(), label="d1"))
    assert [e.code for e in heard] == ["condition_absent"]


# --------------------------------------------------------------------------- the command line


def test_the_command_prints_a_table_or_json(texts_run: Path, texts: Path, invoke: Invoke) -> None:
    argv = ("score", texts_run, texts / "00.txt", "--text", WORD, "--logprobs")
    code, printed, err = invoke(*argv, "--json")
    found = parsed(printed)
    assert code == 0 and found["kind"] == "exact" and [i["item"] for i in found["items"]] == ["item 1", "00.txt"]
    first = found["items"][0]
    assert first["tokens"] == len(first["logprobs"]) == len(WORD) + 1
    assert first["nats"] == pytest.approx(sum(t["logprob"] for t in first["logprobs"]))
    assert model(texts_run).score(WORD)[0].nats == pytest.approx(first["nats"], rel=1e-5)
    code, printed, err = invoke(*argv)
    assert code == 0 and "nats per token" in printed and WORD in printed and "log-probability" in printed
    assert "log-likelihoods (exact log-likelihood)" in err and "longer than the context" in err


def test_the_command_refuses_texts_for_images(pictures_run: Path, invoke: Invoke) -> None:
    code, _, err = invoke("score", pictures_run, "--text", "a")
    assert code == 2 and "--text is for texts; this model makes images" in err
    code, _, err = invoke("score", pictures_run)
    assert code == 2 and "nothing to score" in err
