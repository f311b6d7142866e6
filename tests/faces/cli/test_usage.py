"""Bad usage teaches: what was given, what is accepted, what to do next. Exit code 2, no traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faces.cli.conftest import Invoke, error_of
from tests.plain import assert_plain


@pytest.fixture
def places(digits: Path, texts: Path, pictures_run: Path, texts_run: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("words")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i in range(2):
        (mixed / f"text{i}.txt").write_text("words " * 300)
        (mixed / f"{i}.png").write_bytes((digits / "d0" / "000.png").read_bytes())
    named = {"DIGITS": digits, "TEXTS": texts, "PICTURES": pictures_run, "WORDS": texts_run, "TMP": tmp_path}
    return {k: str(v) for k, v in named.items()}


TRAIN = [
    ("train", "afresh train PATH.*--resume RUN"),
    ("train TMP/nowhere --steps 1", "No file or folder .*nowhere"),
    ("train TMP/empty --steps 1", "empty"),
    ("train TMP/mixed --steps 1", "more than one way.*--modality"),
    ("train DIGITS --steps 1 --minutes 1", "one budget: --minutes, --steps or --set tokens.*Given"),
    ("train DIGITS --steps 0 --out TMP/r", "--steps must be a positive number. Given: 0"),
    ("train DIGITS --minutes -3 --out TMP/r", "--minutes must be a positive.*Given: -3"),
    ("train DIGITS --minutes soon --out TMP/r", "--minutes soon is not a length of time.*90s, 2m, 1h30m"),
    ("train DIGITS --set tokens=1000 --out TMP/r", "--set tokens is a budget for models of tokens"),
    ("train DIGITS --steps many", "--steps.*whole number.*See: afresh train --help"),
    (
        "train DIGITS --steps 1 --family flwo",
        r"No family 'flwo'. Did you mean flow.*transformer, masked, vae, gan, flow \(also called diffusion\)",
    ),
    ("train DIGITS --steps 1 --modality picture", "No modality 'picture'.*audio, code, exercises, field, image"),
    ("train TEXTS --steps 1 --family gan --out TMP/r", "'gan' does not fit.*What works here: transformer"),
    ("train DIGITS --steps 1 --out PICTURES", "already holds a run.*--resume .*--force"),
    ("train DIGITS --steps 1 --out TMP/full", "other things in it.*--force"),
    ("train DIGITS --steps 1 --out TMP/file.txt", "is a file. Choose a folder"),
    ("train DIGITS --steps 1 --device abacus --out TMP/r", "The device 'abacus' is not available.*Available:.*cpu"),
    ("train DIGITS --steps 1 --data size --out TMP/r", "--data takes KEY=VALUE. Given: 'size'"),
    ("train DIGITS --steps 1 --data sise=32 --out TMP/r", "sise.*Accepted: .*size"),
    ("train DIGITS --steps 1 --data size=big --out TMP/r", "size.*whole number"),
    ("train DIGITS --steps 1 --set lr=1 --out TMP/r", "train.NAME or family.NAME.*Given: 'lr'"),
    ("train DIGITS --steps 1 --set train.learnrate=1 --out TMP/r", "No setting train.learnrate.*Known: .*lr"),
    ("train DIGITS --steps 1 --set train.warmp=1 --out TMP/r", "Did you mean warmup"),
    ("train DIGITS --steps 1 --set train.lr=fast --out TMP/r", "train.lr=fast.*number"),
    ("train DIGITS --steps 1 --set train.batch=0 --out TMP/r", "train.batch=0.*at least 1"),
    ("train DIGITS --steps 1 --set train.betas=[0.9 --out TMP/r", "looks like a list but is not JSON"),
    ("train DIGITS --steps 1 --set train.steps=9 --out TMP/r", "parameter of its own: --steps"),
    ("train DIGITS --steps 1 --set train.lr=1 --set train.lr=2", "given twice"),
    ("train TEXTS --steps 1 --set family.widht=64 --out TMP/r", "widht.*Known: .*width"),
    ("train TEXTS --steps 1 --set family.width=7 --out TMP/r", "width 7 must be an even multiple of heads"),
    ("train DIGITS --steps 1 --validation TMP/nowhere --out TMP/r", "nowhere"),
    ("train --resume TMP/nowhere", "is not a run.*no such folder"),
    ("train DIGITS --resume PICTURES", "exactly as it was planned. Leave out: PATH"),
    ("train --resume PICTURES --steps 9 --family gan", "Leave out: --family, --steps"),
]
OTHERS = [
    ("sampel PICTURES", "No such command 'sampel'.*sample.*See: afresh --help"),
    ("sample", "Missing argument.*See: afresh sample --help"),
    ("sample TMP", "is not a run.*no run.json"),
    ("sample PICTURES --colour red", "No such option.*See: afresh sample --help"),
    ("sample PICTURES -n 0", "from 1 to 1,000,000. Given: 0"),
    ("sample PICTURES -n -4", "Given: -4"),
    ("sample PICTURES -n 1000000000", "Given: 1000000000"),
    ("sample PICTURES --label d77", "'d77' was never seen in training. Known: .*d7"),
    ("sample PICTURES --label colour=d7 --label size=d1", "No label named 'colour'. Known: label"),
    ("sample PICTURES --temperature 1", "flow does not know temperature.*steps, solver, .*guidance"),
    ("sample PICTURES --set truncation=0.5", "flow does not know truncation"),
    ("sample PICTURES --set solver=magic", "solver.*euler.*heun"),
    ("sample PICTURES --steps 0", "steps.*at least 1"),
    ("sample PICTURES --prompt hello", "--prompt continues a text"),
    ("sample PICTURES --caption hello", "without captions"),
    ("sample PICTURES --number age=3", "No number named 'age'"),
    ("sample PICTURES --number age=old", "'old' is not a number"),
    ("sample PICTURES --number age", "--number takes KEY=VALUE"),
    (
        "sample PICTURES -n 2 --out TMP/file.txt",
        "file.txt: images are written to a folder, or all to one .png",
    ),
    ("sample PICTURES -n 2 --out TMP/file.txt/in", "Cannot write to .*file.txt"),
    ("sample WORDS --set solver=heun", "transformer does not know solver.*temperature"),
    ("sample WORDS --label cat", "without labels"),
    ("sample WORDS --guidance 2", "unconditional"),
    ("sample WORDS --set top_p=0", "top_p.*above 0"),
    ("sample WORDS -n 1 --length 4 --out TMP/x.png", "texts.*Give a folder"),
    ("sample WORDS --best-of 4", "--best-of 4 requires a reward to choose by. Add --reward"),
    ("sample WORDS --best-of 0 --reward length", "from 1 to 10,000. Given: 0"),
    ("sample WORDS --reward length", "give their number, as in --best-of 8"),
    ("sample WORDS --best-of 2 --reward lenght", "No reward 'lenght'.*Did you mean length"),
    ("sample WORDS --reward-guidance length", "tokens have no gradient.*--best-of 8"),
    ("sample PICTURES --reward-guidance brightness --weight -1", "a number from 0.*Given: -1"),
    ("sample PICTURES --weight 2", "strength of --reward-guidance REWARD. Give both"),
    ("sample PICTURES --adapter TMP/nowhere", "No adapter in .*nowhere.*--lora"),
    ("sample PICTURES --adapter PICTURES", "has no adapter, because all of its weights were trained"),
    ("sample PICTURES --adapter anna=much", "PATH=WEIGHT, for example runs/anna=0.7. Given: 'anna=much'"),
    (
        "propose WORDS --set acquisition=best",
        "'--set acquisition': 'best' is not one of 'ei'.*See: afresh propose --help",
    ),
    (
        "align WORDS --reward length --set prompts=TMP",
        "Cannot read the prompts in .*: is a directory. Give a text file",
    ),
    ("collect DIGITS --into TMP/c --set max_minutes=soon", "--set max_minutes=soon is not a length of time"),
    ("compose TMP TMP/file.txt", "is not a run"),
    ("compose WORDS TMP/file.txt", "makes text, not music in notes"),
    ("measure TMP", "is not a run"),
    ("measure PICTURES -n 1", "at least 2 samples. Given: 1"),
    ("measure PICTURES --data TMP/nowhere", "nowhere"),
    ("data TMP/nowhere", "No file or folder"),
    ("data TMP/mixed", "more than one way"),
    ("data DIGITS --data sise=3", "Accepted: .*size"),
    ("show TMP/nowhere", "is not a run: there is no such folder"),
    ("verify TMP/nowhere", "is not a run: there is no such folder"),
    ("doctor --device abacus", "The device 'abacus' is not available"),
    ("demo --out TMP/full", "full exists.*--force"),
    ("demo --out TMP/file.txt", "is a file"),
]


@pytest.mark.parametrize(("line", "says"), TRAIN + OTHERS)
def test_bad_usage_is_refused_and_explained(line: str, says: str, invoke: Invoke, places: dict[str, str]) -> None:
    argv = []
    for word in line.split(" "):
        name, equals, value = word.rpartition("=")
        head, slash, rest = value.partition("/")
        argv.append(name + equals + places.get(head, head) + slash + rest)
    code, out, err = invoke(*argv)
    assert code == 2, err
    assert re.search(says, err.replace("\n", " ")), err
    assert out == ""
    assert_plain(err)
    assert not (Path(places["TMP"]) / "r" / "run.json").exists(), "refused, yet a run was made"


@pytest.mark.parametrize(
    "line",
    [
        "train --json",
        "sample TMP --json",
        "sample PICTURES --json",
        "sample --wrong --json",
        "doctor --json --device x",
    ],
)
def test_json_mode_says_the_error_as_json_too(line: str, invoke: Invoke, places: dict[str, str]) -> None:
    code, out, err = invoke(*[places.get(w, w) for w in line.split(" ")])
    assert code == 2
    message = error_of(out)["text"]
    assert message and message.splitlines()[0] in err
