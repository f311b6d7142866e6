"""Recommendations: what a model has learnt, what is left out, why, and the probabilities with which lists are drawn."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

import afresh
from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.domains.interactions.blend import blended
from afresh.domains.interactions.exposure_log import read_shown
from afresh.domains.interactions.feedback import evaluate
from afresh.domains.interactions.lists import write_lists
from afresh.domains.interactions.recommend import Ranking, Recommendation, Recommender, drawn_list, marginal_relevance
from afresh.domains.interactions.users import read_ids, users_of
from afresh.faces.cli import run as command
from afresh.faces.cli.words import texts
from afresh.runs.remove import remove_run
from afresh.runs.run import Run
from afresh.verbs.measuring import measure_run
from afresh.verbs.use_command import use_command
from tests.domains.interactions.shop import ITEMS


def best(recommender: Recommender, history: Sequence[str], **ranking: object) -> list[str]:
    found = recommender.recommend([history], Ranking(**ranking))  # type: ignore[arg-type]
    return [r.item for r in found[0]]


def test_what_follows_comes_first_for_users_seen_new_and_unknown(recommender: Recommender) -> None:
    assert best(recommender, ["i3", "i4", "i5"], k=1) == ["i6"]
    users = users_of(recommender, named=["u0"])
    last = int(users.histories[0][-1][1:])
    assert recommender.recommend(users.histories, Ranking(1), users.cond)[0][0].item == f"i{(last + 1) % ITEMS}"
    assert len(best(recommender, [], k=5)) == 5  # somebody of whom nothing is known
    assert len(best(recommender, ["never heard of"], k=5)) == 5


def test_a_masked_model_recommends_too(masked_run: Path) -> None:
    made = Recommender(Run.open(masked_run))
    rows = [made.encoder.ids(["i3", "i4", "i5"]), made.encoder.ids(["i8"])]
    likely = made.log_probs(rows, made.condition(2)).argmax(1).tolist()
    assert [made.catalogue.ids[i] for i in likely] == ["i6", "i9"]


def test_a_session_follows_what_is_known_or_stands_alone(recommender: Recommender) -> None:
    known = users_of(recommender, named=["u0"]).histories[0]
    assert users_of(recommender, named=["u0"], sessions=["i1,i2"]).histories == [[*known, "i1", "i2"]]
    assert users_of(recommender, histories=["i5"], sessions=[["i1"]]).histories == [["i5", "i1"]]
    alone = users_of(recommender, sessions=[["i3", "Thing 4", "what"]])
    assert alone.histories == [["i3", "i4", "what"]] and "what" in alone.notes[0]
    assert recommender.recommend(alone.histories, Ranking(1), alone.cond)[0][0].item == "i5"
    with pytest.raises(UserError, match="2 sessions for 1 user"):
        users_of(recommender, named=["u0"], sessions=["i1", "i2"])


def test_probabilities_are_those_of_the_next_choice(recommender: Recommender) -> None:
    found = recommender.recommend([["i3", "i4"]], Ranking(ITEMS, seen=True))[0]
    assert math.fsum(r.probability for r in found) == pytest.approx(1, abs=1e-4)
    assert [r.probability for r in found] == sorted((r.probability for r in found), reverse=True)
    assert found[0].title == f"Thing {found[0].item[1:]}"


def test_items_of_the_history_are_left_out_unless_they_are_wanted(recommender: Recommender) -> None:
    history = ["i3", "i4", "i5"]
    assert not set(best(recommender, history, k=ITEMS)) & set(history)
    assert set(best(recommender, history, k=ITEMS, seen=True)) >= set(history)


def test_filters_hold_whatever_is_likely(recommender: Recommender) -> None:
    assert set(best(recommender, ["i3"], k=9, where={"colour": "blue"})) <= {f"i{i}" for i in range(1, ITEMS, 2)}
    assert set(best(recommender, ["i9"], k=9, where={"price": "<4"})) == {"i0", "i1", "i2", "i3"}
    assert set(best(recommender, ["i3"], k=9, only=frozenset({"i8", "i1"}))) == {"i8", "i1"}
    assert "i4" not in best(recommender, ["i3"], k=9, exclude=frozenset({"i4"}))
    assert best(recommender, ["i3"], where={"Colour": "BLUE"}) == best(recommender, ["i3"], where={"colour": "blue"})
    with pytest.raises(UserError, match=r"No item of the catalogue fits the conditions\. Loosen"):
        best(recommender, ["i3"], where={"price": "<0"})
    with pytest.raises(UserError, match=r"No item has colour=green\. Values of 'colour' are: blue, red"):
        best(recommender, ["i3"], where={"colour": "green"})
    with pytest.raises(UserError, match=r"no feature 'size'.*title, colour, price"):
        best(recommender, ["i3"], where={"size": "L"})


def test_novelty_prefers_what_fewer_users_choose(recommender: Recommender) -> None:
    """With novelty of 1 items are ranked by p over popularity."""
    p = recommender.probabilities([recommender.encoder.ids(["i3", "i4"])], recommender.condition(1))[0]
    lift = (p / (p.new_tensor(recommender.catalogue.counts) + 1)).argsort(descending=True).tolist()
    assert best(recommender, ["i3", "i4"], k=ITEMS, seen=True, novelty=1.0) == [
        recommender.catalogue.ids[i] for i in lift
    ]
    with pytest.raises(UserError, match="novelty from 0 to 2"):
        best(recommender, ["i3"], novelty=-1.0)


def test_a_sequence_is_made_of_lists_of_one(run: Path) -> None:
    """As the guide says: each item follows from the history and those before it."""
    model, playlist = afresh.load(run), ["i3", "i4"]
    while len(playlist) < 6:
        playlist.append(model.recommend(histories=[playlist], k=1)[0][0].item)
    assert playlist == ["i3", "i4", "i5", "i6", "i7", "i8"]


def test_an_item_that_comes_again_is_no_reason_for_itself(recommender: Recommender) -> None:
    history = ["i3", "i4", "i5"]
    for item in recommender.recommend([history], Ranking(ITEMS, seen=True, because=3))[0]:
        assert item.item not in [reason.item for reason in item.because]


def test_a_reason_is_the_item_without_which_the_probability_falls_most(recommender: Recommender) -> None:
    history = ["i9", "i1", "i5"]
    found = recommender.recommend([history], Ranking(1, because=2))[0][0]
    assert found.item == "i6" and found.because[0][0] == "i5"
    rows = [recommender.encoder.ids(h) for h in (history, ["i9", "i1"])]
    p = recommender.probabilities(rows, recommender.condition(2))[:, recommender.catalogue.index["i6"]]
    assert found.because[0][1] == pytest.approx(float(p[0].log() - p[1].log()), rel=1e-3)


def test_one_user_is_served_alike_alone_and_among_others(recommender: Recommender) -> None:
    histories = [["i3", "i4", "i5"], ["i1"], [], [f"i{j % ITEMS}" for j in range(30)]]
    rows = [recommender.encoder.ids(h) for h in histories]
    together = recommender.probabilities(rows, recommender.condition(4))
    for i, row in enumerate(rows):
        assert torch.allclose(together[i], recommender.probabilities([row], recommender.condition(1))[0], atol=1e-5)


def test_diversity_takes_what_is_unlike_and_none_takes_the_likeliest() -> None:
    logs = torch.tensor([0.0, -0.1, -2.0, -3.0])
    alike = torch.eye(4)
    alike[0, 1] = alike[1, 0] = 1
    assert marginal_relevance(logs, alike, 3, 0.0) == [0, 1, 2]
    assert marginal_relevance(logs, alike, 3, 0.6) == [0, 2, 3]


def test_a_drawn_list_has_the_stated_probabilities() -> None:
    """Each first place as often as its probability, and a list's probabilities those of drawing one after the other."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts: Counter[int] = Counter()
    for row in range(4_000):
        chosen, drawn = drawn_list(p.log(), 3, Rng(0), row)
        counts[chosen[0]] += 1
        left = 1.0
        for j, d in zip(chosen, drawn, strict=True):
            assert d == pytest.approx(float(p[j]) / left, rel=1e-5)
            left -= float(p[j])
    for j in range(4):
        error = 4 * math.sqrt(float(p[j] * (1 - p[j])) / 4_000)
        assert counts[j] / 4_000 == pytest.approx(float(p[j]), abs=error)


def test_the_blend_is_fitted_once_and_kept(run: Path) -> None:
    Recommender(Run.open(run)).blend  # noqa: B018
    file = run / "recommend" / "blend.json"
    kept = json.loads(file.read_text())
    tables = {"following", "together", "alike"}
    assert kept["events"] == 30  # every second of 60 users
    assert set(kept["weights"]) == {
        "network",
        "popularity",
        *(f"{t}, floor {f}" for t in tables for f in ("10", "0.1")),
    }
    file.write_text(json.dumps({**kept, "colour": 1}))
    with pytest.raises(UserError, match="colour"):
        Recommender(Run.open(run)).blend  # noqa: B018
    file.write_text(json.dumps(kept))


def test_held_out_events_are_counted_for_users_and_not_for_measures(run: Path) -> None:
    for_users, for_measures = Recommender(Run.open(run)), Recommender(Run.open(run), complete=False)
    assert for_users.tables.following.weight.sum() > for_measures.tables.following.weight.sum()
    assert torch.equal(for_measures.tables.following.weight, for_users.encoder.neighbours.weight)
    again = Recommender(Run.open(run)).tables
    assert torch.equal(again.following.weight, for_users.tables.following.weight)
    assert again.together is not None and for_users.tables.together is not None
    assert torch.equal(again.together.weight, for_users.tables.together.weight)


def test_probabilities_are_those_of_the_product_of_all_experts(recommender: Recommender) -> None:
    """What is computed only where a table knows something equals the sum over all items."""
    rows = [recommender.encoder.ids(h) for h in (["i3", "i4"], [], ["i9"])]
    experts = recommender.experts(rows, recommender.condition(3))
    wanted = blended(experts, recommender.blend.weights).softmax(1)
    assert torch.allclose(recommender.probabilities(rows, recommender.condition(3)), wanted, rtol=1e-4, atol=1e-7)


def test_without_the_data_what_was_counted_is_used(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    Recommender(Run.open(run)).tables  # noqa: B018
    shutil.copytree(run, copy)
    (copy / "run.json").write_text((run / "run.json").read_text().replace(str(run.parent), str(tmp_path / "gone")))
    kept, bare = Recommender(Run.open(copy)), ["i3", "i4"]
    rows = [kept.encoder.ids(bare)]
    own = Recommender(Run.open(run))
    assert torch.equal(kept.probabilities(rows, kept.condition(1)), own.probabilities(rows, own.condition(1)))
    shutil.rmtree(copy / "recommend")
    alone = Recommender(Run.open(copy))
    assert alone.blend.weights == {"network": 1.0} and len(alone.recommend([bare], Ranking(3))[0]) == 3


def test_the_blend_is_removed_with_its_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert Recommender(Run.open(tmp_path / "run")).blend.events
    assert remove_run(Run.open(tmp_path / "run")) == [] and not (tmp_path / "run").exists()


def test_the_command_shows_lists_writes_tables_and_says_what_is_wrong(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["recommend", str(run), "--history", "i3,thing 4", "-k", "3", "--because", "1"]) == 0
    shown = capsys.readouterr()
    assert "Thing 5 (i5)" in shown.out and "because of" in shown.out
    assert command(["recommend", str(run), "--all", "-k", "2", "--out", str(tmp_path / "all.parquet")]) == 0
    rows = parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert len(rows) == 120 and {"user", "place", "item", "probability"} <= set(rows[0])
    capsys.readouterr()
    for asked, said in (
        (["--user", "u1000"], "No user 'u1000' among the 60"),
        (
            ["--history", "i3,Thong 4"],
            "No item 'Thong 4' among the 12 of the catalogue. Similar names: 'Thing 4",
        ),
        (["--history", "i1", "--where", "price=<a few"], "'a few' is not a number"),
        ([], "Say for whom"),
        (["--history", "i1", "--diversity", "2"], "diversity from 0 to 1"),
        (["--history", "i1", "--where", "colour"], "--where takes KEY=VALUE"),
        (["--history", "i1", "--only", str(tmp_path / "none")], "cannot be read"),
    ):
        assert command(["recommend", str(run), *asked]) == 2
        assert said in capsys.readouterr().err


def test_the_ending_of_a_file_says_in_which_form_lists_are_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lists.parquet", "lists.csv", "lists.jsonl"):
        assert command(["recommend", str(run), "--all", "-k", "2", "--out", str(tmp_path / name)]) == 0
    rows = parquet.read_table(tmp_path / "lists.parquet").to_pylist()
    assert [json.loads(line) for line in (tmp_path / "lists.jsonl").read_text().splitlines()] == rows
    with (tmp_path / "lists.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in rows]
    capsys.readouterr()
    for name in ("lists.xlsx", "lists"):
        assert command(["recommend", str(run), "--all", "--out", str(tmp_path / name)]) == 2
        assert ".parquet or .csv or .jsonl" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lists.csv", "lists.jsonl", "lists.parquet"]


def test_a_table_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "lists.csv"
    file.write_text("before")

    def fails() -> Iterator[list[Recommendation]]:
        yield [Recommendation("a", "A, or not", 0.5)]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_lists(file, ["1", "2"], fails())
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    assert write_lists(file, ["1"], [[Recommendation("a", "A, or not", 0.5)]]) == 1
    assert file.read_text().splitlines()[1] == '1,1,a,"A, or not",0.5,1.0'


def test_what_is_next_is_a_recommendation_for_a_user_of_the_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is said; the user is looked up in the log, and not kept with the run."""
    said = use_command(Run.open(run))
    assert said == f"afresh recommend {run} --user u4"  # who has most events, the first of them
    assert command(["show", str(run)]) == 0 and said in capsys.readouterr().out
    assert said in json.loads((run / "report.json").read_text())["sections"][0]["next_commands"]
    copied = shutil.copytree(run, tmp_path / "run")
    record = json.loads((copied / "run.json").read_text())
    record["data"]["path"] = str(tmp_path / "gone")
    (copied / "run.json").write_text(json.dumps(record))
    assert "--all" in use_command(Run.open(copied))


def test_what_is_asked_for_is_checked(tmp_path: Path) -> None:
    assert texts(None, ["a=b=c", "price=<3", 'colour=["red", "blue"]'], "--where") == {
        "a": "b=c",
        "price": "<3",
        "colour": "red|blue",
    }
    (tmp_path / "ids").write_text("\n \n")
    with pytest.raises(UserError, match="holds no ids"):
        read_ids(None, tmp_path / "ids", "--exclude-file")  # type: ignore[arg-type]


def shown_log(recommender: Recommender, file: Path, lists: int = 120, k: int = 2) -> None:
    """Lists that were drawn with `explore=3`, of which users click what comes next in the order of items."""
    histories = [[f"i{(u + e) % ITEMS}" for e in range(3)] for u in range(lists)]
    found = recommender.recommend(histories, Ranking(k, explore=3.0, seed=3))
    rows = []
    for number, (history, items) in enumerate(zip(histories, found, strict=True)):
        wanted = f"i{(int(history[-1][1:]) + 1) % ITEMS}"
        for place, r in enumerate(items, 1):
            row = {"list": number, "place": place, "history": history, "item": r.item, "drawn": r.drawn}
            rows.append({**row, "clicked": r.item == wanted})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_was_drawn_is_given_the_probabilities_with_which_it_was_drawn(
    recommender: Recommender, tmp_path: Path
) -> None:
    shown_log(recommender, tmp_path / "shown.jsonl")
    found = evaluate(recommender, tmp_path / "shown.jsonl", Ranking(explore=3.0)).found
    assert found.most == pytest.approx(1, abs=1e-4) and found.effective == pytest.approx(120, abs=0.01)
    for name in ("ips", "snips"):
        assert found.estimates[name].value.value == pytest.approx(found.logged.value, abs=1e-3)
    assert found.estimates["dr"].value.value == pytest.approx(found.logged.value, abs=0.1)


def test_the_command_tells_what_the_likeliest_items_would_have_earned(
    run: Path, recommender: Recommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_log(recommender, tmp_path / "shown.jsonl", lists=400)
    asked = ["recommend", str(run), "--evaluate", str(tmp_path / "shown.jsonl")]
    assert command([*asked, "-k", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["estimates"]) == {"ips", "snips", "dr"}
    assert result["estimates"]["snips"]["value"] > 0.95  # the model has learnt what comes next
    assert result["estimates"]["dr"]["gain"]["low"] > 0 and result["lists"] == 400
    assert any("below place 1, not counted" in n for n in result["notes"])
    assert command([*asked, "--explore", "2.5", "--set", "clip=2"]) == 0
    shown = capsys.readouterr()
    assert "SNIPS" in shown.out and "as shown" in shown.out and "drawn is 'drawn'" in shown.err
    assert command([*asked, "-k", "1", "--only", str(written(tmp_path / "one", "i0\n"))]) == 2
    assert "cannot be told" in capsys.readouterr().err
    assert command([*asked, "--user", "u0"]) == 2


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_a_log_of_users_is_read_with_their_histories_from_the_data(recommender: Recommender, tmp_path: Path) -> None:
    names = [f"u{u}" for u in range(40)]
    users = users_of(recommender, named=names)
    found = recommender.recommend(users.histories, Ranking(1, explore=1.0), users.cond)
    rows = [f"{u},{r[0].item},{r[0].drawn},0.5" for u, r in zip(names, found, strict=True)]
    log = written(tmp_path / "shown.csv", "\n".join(["user_id,item_id,propensity,rating", *rows, ""]))
    earned = evaluate(recommender, log, Ranking(explore=1.0))
    assert earned.found.estimates["dr"].value.value == pytest.approx(0.5, abs=1e-3)
    assert "drawn is 'propensity'" in earned.notes[0]


def test_a_log_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    for text, said in (
        ("history,item,clicked\na,b,1\n", "lacks columns: drawn"),
        ("item,drawn,clicked\nb,0.5,1\n", r"lacks columns: history \(or user\)"),
        ("history,item,drawn,clicked\na,b,0.5,\n", "Row 1 of the log has 'nothing' for clicked"),
        ("history,item,drawn,clicked,place\na,b,0.5,1,1\na,c,0.5,1,3\n", "without a gap"),
        ("history,item,drawn,clicked,list\na,b,0.5,1,1\na,c,0.5,1,1\n", "Add a column `place`"),
        ("history,item,drawn,clicked\n", "No log of what was shown"),
    ):
        with pytest.raises(UserError, match=said):
            read_shown(written(tmp_path / "log.csv", text))
    found = read_shown(written(tmp_path / "log.csv", 'history,item,drawn,clicked\n"a,b",007,0.5,yes\n,8,1,no\n'))
    assert found.histories == [["a", "b"], []] and found.items == ["007", "8"]
    assert found.reward.tolist() == [1, 0] and found.decision.tolist() == [0, 1]


def test_a_run_is_aligned_to_a_reward_of_the_item_after_a_history(run: Path, tmp_path: Path) -> None:
    """The reward is told the history, of one user; what it changed in the network moves the whole blend."""
    (tmp_path / "reward.py").write_text(
        "def score(history, request):\n"
        "    before = request['prompt'].split(',') if request['prompt'] else []\n"
        "    steps = [(int(b[1:]) - int(a[1:])) % 12 for a, b in zip(before, before[1:])]\n"
        "    assert len(history.items) <= 1 and all(s == 1 for s in steps), (before, history)\n"
        "    return float(history.items == ('i3',))\n"
    )
    reward = f"{tmp_path / 'reward.py'}:score"
    for name, prompts in (("drawn", ["--set", "prompt_tokens=3"]), ("given", ["--prompt", "i3,i4"])):
        out = str(tmp_path / name)
        asked = ["align", str(run), "--reward", reward, "--length", "1", "--steps", "2", "--out", out, *prompts]
        assert command(asked) == 0
    after = Recommender(Run.open(tmp_path / "drawn"))
    assert after.blend.weights == {**Recommender(Run.open(run)).blend.weights, "alignment": 1.0}


def tuned(run: Path, folder: Path, name: str, events: Sequence[str]) -> Path:
    """A run that was tuned for 60 steps on other events."""
    (folder / f"{name}.csv").write_text("\n".join(["user,item,time", *events, ""]))
    asked = ["--steps", "60", "--no-measure", "--data", "split=last", "--set", "train.lr=0.01"]
    assert command(["tune", str(run), str(folder / f"{name}.csv"), "--out", str(folder / name), *asked]) == 0
    return folder / name


def test_forgetting_is_measured_on_the_held_out_events_of_the_base(run: Path, tmp_path: Path) -> None:
    """Who is tuned on the same order still knows it, and who is tuned on its reverse does not. What the tuned run has
    trained on is not asked."""
    newer = 1_800_000_000
    same = [f"n{u},i{(u + e) % ITEMS},{newer + 1000 * e + u}" for u in range(40) for e in range(6)]
    other = [f"n{u},i{(u - e) % ITEMS},{newer + 1000 * e + u}" for u in range(40) for e in range(6)]
    own = [f"u{u},i{(u + e) % ITEMS},{newer + 1000 * e + u}" for u in range(60) for e in range(10)]
    found = {}
    for name, events in (("same", same), ("other", other), ("own", own)):
        after = measure_run(Run.open(tuned(run, tmp_path, name, events)), seconds=300)
        found[name] = {s.name: s for s in after.scores}
        said = " ".join(after.notes)
        assert ("did not train on" in said) == (name == "own")
        assert ("before tuning" in said) == (name != "own")
    kept, lost = (found[name]["retained_NDCG@10"] for name in ("same", "other"))
    assert kept.control == lost.control and kept.n == 60
    assert kept.value > 0.95 > lost.value
    assert "retained_NDCG@10" not in found["own"]
    base = {s.name for s in measure_run(Run.open(run), seconds=300).scores}
    assert "NDCG@10" in base and not any(name.startswith("retained") for name in base)


def test_tuning_learns_new_items_which_keep_the_tokens_of_the_others(run: Path, tmp_path: Path) -> None:
    """New users go on from the last items to two that are new; others choose as before."""
    last = ITEMS - 1
    events = [
        f"n{u},{item},{1_800_000_000 + 1000 * e + u}"
        for u in range(40)
        for e, item in enumerate([f"i{last - 1}", f"i{last}", "new", "newer", "i0"])
    ]
    events += [f"m{u},i{(u + e) % ITEMS},{1_800_000_000 + 1000 * e + u}" for u in range(36) for e in range(5)]
    (tmp_path / "newer.csv").write_text("\n".join(["user,item,time", *events, ""]))
    asked = ["--steps", "90", "--no-measure", "--data", "split=last", "--out", str(tmp_path / "run")]
    assert command(["tune", str(run), str(tmp_path / "newer.csv"), *asked]) == 0
    base, tuned = Recommender(Run.open(run)), Recommender(Run.open(tmp_path / "run"))
    assert tuned.catalogue.ids[:ITEMS] == base.catalogue.ids and tuned.catalogue.ids[ITEMS:] == ("new", "newer")
    rows = [tuned.encoder.ids(h) for h in ([f"i{last - 1}", f"i{last}"], ["i3", "i4", "i5"], ["new"])]
    likely = tuned.log_probs(rows, tuned.condition(3)).argmax(1).tolist()
    assert [tuned.catalogue.ids[i] for i in likely] == ["new", "i6", "newer"]
    assert tuned.catalogue.title(tuned.catalogue.index["i3"]) == "Thing 3"
    assert command(["tune", str(run), str(tmp_path / "newer.csv"), "--adapter", "anna", "--steps", "1"]) == 2
