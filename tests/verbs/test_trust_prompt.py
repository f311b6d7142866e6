"""A query of a data base that somebody else's run names is asked by no command before the run is trusted."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tools.fuzz.mutations import correct_hashes

from afresh.core import UserError
from afresh.data.storage.secret import secret_file
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.runs.signature import made_here, sign

QUERY = "SELECT user, item, time FROM log WHERE item <> 'none'"
ANSWERS = "SELECT learner, item, correct, time FROM answers"
Stranger = Callable[..., Path]


def trained(data: Path, out: Path, query: str) -> Path:
    argv = ["train", str(data), "--steps", "2", "--out", str(out), "--no-measure", "--data", f"query={query}"]
    for part in (
        "family.width=16",
        "family.layers=1",
        "family.heads=2",
        "family.kv_heads=2",
        "train.batch=4",
        "train.precision=float32",
    ):
        argv += ["--set", part]
    assert command([*argv, "--family", "transformer"]) == 0
    return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the rows of a query, whose data base lies in its folder."""
    root = tmp_path_factory.mktemp("shop")
    with sqlite3.connect(root / "log.db") as base:
        base.execute("CREATE TABLE log (user TEXT, item TEXT, time INTEGER)")
        rows = [(f"u{u}", f"i{(u + e) % 8}", 1_700_000_000 + 100 * e + u) for u in range(30) for e in range(5)]
        base.executemany("INSERT INTO log VALUES (?, ?, ?)", rows)
    return trained(root / "log.db", root / "run", QUERY)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("school")
    with sqlite3.connect(root / "answers.db") as base:
        base.execute("CREATE TABLE answers (learner TEXT, item TEXT, correct INTEGER, time INTEGER)")
        rows = [(f"l{u}", f"q{e % 4}", (u + e) % 2, 1_700_000_000 + 100 * e + u) for u in range(30) for e in range(8)]
        base.executemany("INSERT INTO answers VALUES (?, ?, ?, ?)", rows)
    return trained(root / "answers.db", root / "run", ANSWERS)


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    """A run as somebody else would send it, with its data base in its folder and a query of theirs."""

    def make(run: Path, query: str) -> Path:
        out = tmp_path / "stranger"
        shutil.copytree(run, out)
        record = json.loads((out / "run.json").read_bytes())
        shutil.copy(record["data"]["path"], out / "base.db")
        record["data"]["path"], record["data"]["options"]["query"] = str(out / "base.db"), query
        (out / "run.json").write_text(json.dumps(record))
        correct_hashes(out)
        return out

    return make


def test_no_command_asks_a_query_of_somebody_else(
    shop: Path, stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "written"
    run = stranger(shop, f"VACUUM INTO '{written}'")
    newer = json.loads((shop / "run.json").read_bytes())["data"]["path"]
    for code, *argv in (
        (0, "show", run),
        (0, "verify", run),
        (2, "measure", run, "-n", 2),
        (2, "recommend", run, "--user", "u1"),
        (2, "recommend", run, "--user", "u1", "--data", newer),
        (0, "recommend", run, "--history", "i1,i2"),
        (2, "score", run, newer),
        (2, "train", "--resume", run, "--no-measure"),
    ):
        capsys.readouterr()
        ended, err = command([str(a) for a in argv]), capsys.readouterr().err
        assert ended == code, (argv, err)
        assert "VACUUM" in err or argv[0] in ("show", "verify"), (argv, err)
        assert not written.exists(), argv
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stranger"]


def test_a_harmless_query_of_somebody_else_is_asked_once_it_is_trusted(
    shop: Path, stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stranger(shop, QUERY)
    assert command(["measure", str(run), "-n", "2"]) == 2
    assert "afresh verify RUN --trust" in capsys.readouterr().err
    assert command(["verify", str(run)]) == 0
    assert "was not made here" in capsys.readouterr().out
    assert command(["verify", str(run), "--trust"]) == 0
    shown = capsys.readouterr()
    assert f"trusted: ask a data base: {QUERY}" in shown.err and "not made here" not in shown.out
    assert made_here(Run.open(run))
    assert command(["recommend", str(run), "--user", "u1", "-k", "3"]) == 0


def test_what_is_trusted_is_still_only_read(
    shop: Path, stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stranger(shop, f"ATTACH '{tmp_path / 'written'}' AS other")
    assert command(["verify", str(run), "--trust"]) == 1
    assert "neither a table nor a SELECT" in capsys.readouterr().out
    assert not (tmp_path / "written").exists()


@pytest.mark.slow
def test_a_run_of_ones_own_is_not_asked_about(shop: Path, school: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ("verify", shop),
        ("recommend", shop, "--user", "u1"),
        ("practise", school, "--learner", "l1"),
    ):
        assert command([str(a) for a in argv]) == 0, capsys.readouterr().err
        assert "not made here" not in capsys.readouterr().err


def test_a_learner_is_not_looked_for_by_a_query_of_somebody_else(
    school: Path, stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stranger(school, "SELECT * FROM answers")
    assert command(["practise", str(run), "--learner", "l1"]) == 2
    assert "not made here" in capsys.readouterr().err
    assert command(["practise", str(run), "--history", "q1:right,q2:wrong"]) == 0


def test_trust_holds_for_a_command_where_it_cannot_be_kept(
    shop: Path, stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afresh.verbs.trust_prompt import check_trust

    run = Run.open(stranger(shop, QUERY))
    monkeypatch.setattr("afresh.runs.signature._TRUSTED", set())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="trust the run"):
        run_data(run)
    check_trust(run, trust=True)
    assert len(run_data(run).train_items) == 30 and not secret_file().exists()


def test_the_names_of_a_log_that_a_run_of_somebody_else_names_are_not_told(
    shop: Path, stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stranger(shop, QUERY)
    private = tmp_path / "private.csv"
    private.write_text("user,item,time\n" + "".join(f"ann{i % 9},i{i % 8},{i}\n" for i in range(90)))
    record = json.loads((run / "run.json").read_bytes())
    record["data"]["path"], record["data"]["options"]["query"] = str(private), None
    (run / "run.json").write_text(json.dumps(record))
    for argv in (("recommend", str(run), "--user", "u1"), ("show", str(run))):
        command(list(argv))
        shown = capsys.readouterr()
        assert "ann" not in shown.out + shown.err


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 5, True])
def test_options_of_other_types_are_an_error_that_names_them(
    value: object, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(shop, run)
    record = json.loads((run / "run.json").read_bytes())
    record["data"]["options"] |= {"user": value, "query": None}
    (run / "run.json").write_text(json.dumps(record))
    sign(Run.open(run))
    assert command(["show", str(run)]) == 0
    for argv in (("measure", str(run)), ("recommend", str(run), "--user", "u1")):
        assert command(list(argv)) == 2
        assert "Data options of interactions: user: should be a text" in capsys.readouterr().err
