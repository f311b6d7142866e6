"""Votes in the studio: which of two, and that every answer is on the disk."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.engine.alignment.feedback.preferences import read_votes
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.rights import Holder
from tests.faces.http.conftest import OWNER, TINY, serving

SCRIPT = "<script>alert(1)</script>"


class Voter:
    """A browser without a screen."""

    def __init__(self, http: httpx.Client, folder: Path) -> None:
        self.http, self.folder = http, folder

    def begin(self, **fields: str | int) -> str:
        """The address of the session."""
        answer = self.http.post("/studio/vote", data={k: str(v) for k, v in fields.items()})
        assert answer.status_code == 303, answer.text
        self.where = answer.headers["location"]
        self.session = self.where.partition("?")[0]
        return self.show()

    def show(self) -> str:
        self.page = self.http.get(self.where).text
        return self.page

    @property
    def pair(self) -> str:
        found = re.search(r'data-pair="(\w+)"', self.page)
        assert found is not None, self.page
        return found[1]

    def post(self, what: str, **fields: str) -> httpx.Response:
        answer = self.http.post(f"{self.session}/{what}", data=fields)
        if answer.status_code == 200:
            self.page = answer.text
        return answer

    def vote(self, vote: str) -> httpx.Response:
        return self.post("answer", pair=self.pair, vote=vote)

    def items(self) -> list[httpx.Response]:
        return [self.http.get(path) for path in re.findall(r'<(?:img|audio)[^>]* src="([^"]+)"', self.page)]


@pytest.fixture
def voter(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_jobs: None) -> Iterator[Voter]:
    """A server of runs of this test, beside which the votes lie."""
    folder = tmp_path / "runs"
    for name in ("digits", "stories"):
        shutil.copytree(runs / name, folder / name)
    monkeypatch.setenv("AFRESH_JOBS_FOLDER", str(tmp_path / "jobs"))
    server = serving(ServeSettings([folder], memory=2**30, keys=OWNER))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield Voter(client, folder)
    next(server, None)


def test_voting_on_images(voter: Voter) -> None:
    path = voter.folder / "digits-votes.jsonl"
    assert "1 of 3" in voter.begin(run="digits", n=3, **{"label.label": "two"})
    for i, said in enumerate(("a", "b", "tie")):
        assert f"{i + 1} of 3" in voter.page and "Which is better?" in voter.page
        assert 'data-form="image"' in voter.page and "Hear both" not in voter.page
        seen = [answer.content for answer in voter.items()]
        assert voter.vote(said).status_code == 200
        votes = read_votes(path).votes
        assert len(votes) == i + 1 and votes[-1].winner == said and votes[-1].label == "two"
        assert [(path.parent / item).read_bytes() for item in (votes[-1].a, votes[-1].b)] == seen
    assert (
        "3 votes, 1 of them ties." in voter.page and "17 more votes" not in voter.page and "18 more votes" in voter.page
    )
    assert all(answer.content.startswith(b"\x89PNG") for answer in voter.items()) and voter.items()


def test_voting_on_texts_and_going_on_after_a_restart(voter: Voter, runs: Path) -> None:
    voter.begin(run="stories", n=4, prompts="Once there", question="Which is merrier?")
    assert "Which is merrier?" in voter.page and "Once there" in voter.page and 'class="words"' in voter.page
    assert 'data-form="text"' in voter.page and "arrow keys" in voter.page
    voter.vote("a")
    other = serving(ServeSettings([voter.folder], memory=2**30, keys=OWNER))
    with httpx.Client(base_url=next(other), timeout=60) as client:
        lost = client.get(voter.where)
        assert lost.status_code == 404 and "All votes are kept" in lost.text and "Once there" in lost.text
        again = Voter(client, voter.folder)
        assert "2 of 4" in again.begin(run="stories", n=4, prompts="Once there", question="Which is merrier?")
    next(other, None)


def test_the_last_vote_is_undone(voter: Voter) -> None:
    path = voter.folder / "digits-votes.jsonl"
    voter.begin(run="digits", n=3)
    assert voter.post("undo").status_code == 409
    first, seen = voter.pair, [answer.content for answer in voter.items()]
    voter.vote("a")
    voter.post("undo")
    assert "1 of 3" in voter.page and voter.pair != first and path.read_bytes() == b""
    assert [answer.content for answer in voter.items()] == seen, "the same sides"
    for said in ("b", "skip", "a"):
        voter.vote(said)
    assert "Undo the last vote" in voter.page
    voter.post("undo")
    assert "3 of 3" in voter.page and len(read_votes(path).votes) == 1


def test_only_pairs_that_were_shown_are_judged_and_once(voter: Voter) -> None:
    path = voter.folder / "digits-votes.jsonl"
    voter.begin(run="digits", n=3)
    name = voter.pair
    assert voter.post("answer", pair="0" * 16, vote="a").status_code == 409
    assert voter.post("answer", pair=name, vote="c").status_code == 400 and not path.exists()
    voter.show()
    assert voter.pair == name, "a page that is loaded again shows the same pair"
    first = voter.post("answer", pair=name, vote="a")
    assert voter.post("answer", pair=name, vote="a").text == first.text, "sent again: kept once"
    refused = voter.post("answer", pair=name, vote="b")
    assert refused.status_code == 409 and "another tab" in refused.text
    assert refused.headers["hx-retarget"] == "#vote-error" and len(read_votes(path).votes) == 1


def test_a_vote_that_cannot_be_written_can_be_sent_again(voter: Voter) -> None:
    path = voter.folder / "digits-votes.jsonl"
    voter.begin(run="digits", n=3)
    path.mkdir()
    failed = voter.vote("b")
    assert failed.status_code == 500 and "not saved" in failed.text and "Send again" in failed.text
    path.rmdir()
    assert voter.vote("b").status_code == 200 and len(read_votes(path).votes) == 1


def test_words_of_others_stay_words(voter: Voter) -> None:
    voter.begin(run="stories", n=2, prompts=SCRIPT, question=SCRIPT)
    assert SCRIPT not in voter.page and voter.page.count("&lt;script&gt;") >= 2
    voter.vote("a")
    voter.vote("b")
    assert SCRIPT not in voter.page and "&lt;script&gt;" in voter.page, "in what the votes say"
    shown = voter.http.get("/studio/vote", params={"run": SCRIPT, "prompts": SCRIPT, "question": f'">{SCRIPT}'})
    assert shown.status_code == 200 and SCRIPT not in shown.text
    folder = voter.folder / '"><img src=x onerror=alert(1)>'
    shutil.copytree(voter.folder / "stories", folder)
    voter.begin(run=folder.name, n=2)
    assert "<img src=x" not in voter.page and "<img src=x" not in voter.http.get("/studio/vote").text


def test_two_runs_are_compared_blindly(voter: Voter) -> None:
    data = voter.folder.parent / "novels.txt"
    data.write_text("\n\n".join(f"The night was dark and stormy, for the time {i}." for i in range(60)))
    afresh.train(data, steps=4, out=voter.folder / "novels", data={"context": 64}, settings=TINY, quiet=True)
    voter.begin(run="stories", other="novels", n=4, prompts="Once")
    pair = voter.page.partition("data-pair")[2]
    assert "novels" not in pair and "stories" not in pair


@pytest.mark.parametrize("fields", [
    {"run": "none"},
    {"run": ""},
    {"run": "../digits"},
    {"run": "digits", "n": "0"},
    {"run": "digits", "n": "1e308"},
    {"run": "digits", "n": "nan"},
    {"run": "digits", "seed": "-1"},
    {"run": "digits", "other": "digits"},
    {"run": "digits", "other": "stories"},
    {"run": "digits", "label.label": "nine"},
    {"run": "digits", "label.none": "nine"},
    {"run": "digits", "caption": "a cat"},
    {"run": "digits", "prompts": "x"},
    {"run": "digits", "unknown": "x"},
    {"run": "digits", "labels": "x"},
    {"run": "stories", "question": "x" * 3000},
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(voter: Voter, fields: dict[str, str]) -> None:
    answer = voter.http.post("/studio/vote", data=fields)
    assert 400 <= answer.status_code < 500 and 'role="alert"' in answer.text
    assert not list(voter.folder.glob("*-votes*"))


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}])
def test_other_pages_neither_begin_nor_vote(voter: Voter, headers: dict[str, str]) -> None:
    voter.begin(run="digits", n=3)
    for path, fields in (
        ("/studio/vote", {"run": "digits"}),
        (f"{voter.session}/answer", {"pair": voter.pair, "vote": "a"}),
        (f"{voter.session}/undo", {}),
        (f"{voter.session}/learn", {"minutes": "1"}),
    ):
        assert voter.http.post(path, data=fields, headers=headers).status_code == 403
    assert not (voter.folder / "digits-votes.jsonl").exists() and not (voter.folder.parent / "jobs").exists()


@pytest.mark.parametrize(
    "path", ["vote/items/0", "vote/items/..%2F..%2Fdigits-votes.jsonl", "vote/0/none", "vote/learnt/0"]
)
def test_nothing_else_is_shown(voter: Voter, path: str) -> None:
    assert voter.http.get(f"/studio/{path}").status_code == 404


def test_a_server_of_many_sessions_is_not_ended_by_a_page(voter: Voter) -> None:
    voter.begin(run="digits", n=2)
    assert voter.post("end").status_code == 404 and voter.http.get("/health").status_code == 200
    assert json.loads(voter.http.get("/health").text)


def test_with_keys_everybody_votes_by_name_and_alone(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "stories", tmp_path / "runs" / "stories")
    keys = Keys({"a-key-of-anns-own": Holder("ann"), "a-key-of-bobs-own": Holder("bob")})
    server = serving(ServeSettings([tmp_path / "runs"], memory=2**30, keys=keys))
    address = next(server)
    ann, bob = (
        Voter(httpx.Client(base_url=address, timeout=60, headers={"x-api-key": key}), tmp_path / "runs")
        for key in keys.holders
    )
    ann.begin(run="stories", n=3)
    ann.vote("a")
    assert bob.http.get(ann.session).status_code == 404
    assert bob.http.post(f"{ann.session}/answer", data={"pair": ann.pair, "vote": "a"}).status_code == 404
    bob.begin(run="stories", n=3)
    bob.vote("b")
    assert [vote.rater for vote in read_votes(tmp_path / "runs" / "stories-votes.jsonl").votes] == ["ann", "bob"]
    next(server, None)


# --------------------------------------------------------------------------- in a browser

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "color_scheme": "dark"}
Open = Callable[..., Any]


def shown(page: Any, before: str = "") -> str:
    """The pair that is shown, once it is another one and can be judged."""
    button = page.wait_for_selector(f"[data-pair]:not([data-pair='{before}']) [data-vote=a]:enabled")
    while not button.evaluate("(element) => 'htmx-internal-data' in element"):  # it listens some milliseconds later
        page.wait_for_timeout(10)
    return str(page.get_attribute("[data-pair]", "data-pair"))


def begun(page: Any) -> None:
    with page.expect_navigation():
        page.click("#draw")


def photographed(page: Any, tmp_path: Path, name: str) -> None:
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True)


def test_twenty_votes_by_keyboard(voter: Voter, open_page: Open, tmp_path: Path) -> None:
    page, path = open_page(f"{voter.http.base_url}/studio/vote?run=digits"), voter.folder / "digits-votes.jsonl"
    photographed(page, tmp_path, "begin")
    begun(page)
    pair, expected = shown(page), []
    photographed(page, tmp_path, "pair")
    meant = {"a": "a", "b": "b", "ArrowLeft": "a", "ArrowRight": "b", "t": "tie"}
    for key in [*meant] * 4:
        page.keyboard.press(key)
        expected.append(meant[key])
        if len(expected) == 20:
            break
        pair = shown(page, pair)
        if len(expected) == 3:  # the third is taken back, and given again
            page.keyboard.press("u")
            pair = shown(page, pair)
            assert len(read_votes(path).votes) == 2
            page.keyboard.press("b")
            pair, expected[2] = shown(page, pair), "b"
    page.wait_for_selector(".vote-said")
    assert [vote.winner for vote in read_votes(path).votes] == expected
    page.locator(".vote-said img").first.evaluate("(image) => image.decode()")
    photographed(page, tmp_path, "said")
    page.keyboard.press("u")
    shown(page)
    assert len(read_votes(path).votes) == 19


def test_texts_on_a_telephone(voter: Voter, open_page: Open, tmp_path: Path) -> None:
    page = open_page(f"{voter.http.base_url}/studio/vote?run=stories", **PHONE)
    page.fill("#prompts", "Once there\nA <b>cat</b>")
    page.fill("#n", "2")
    begun(page)
    pair = shown(page)
    photographed(page, tmp_path, "pair")
    page.tap("[data-vote=b]")
    shown(page, pair)
    page.tap("[data-vote=said]")
    page.wait_for_selector(".vote-said")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert read_votes(voter.folder / "stories-votes.jsonl").votes[0].winner == "b"


@pytest.mark.parametrize("name", ["sounds", "tunes"])
def test_what_sounds_is_heard_before_it_is_judged(
    voter: Voter, more: Path, open_page: Open, tmp_path: Path, name: str
) -> None:
    shutil.copytree(more / name, voter.folder / name)
    page = open_page(f"{voter.http.base_url}/studio/vote?run={name}")
    page.fill("#n", "2")
    begun(page)
    page.wait_for_selector("[data-pair]")
    assert page.locator("[data-vote=skip]").is_enabled()
    if page.locator("audio").count():  # a tune of a few steps may have no notes
        assert page.locator("[data-vote=a]").is_disabled()
        for key in ("1", "2"):
            page.keyboard.press(key)
            page.wait_for_timeout(150)
    page.wait_for_selector("[data-vote=a]:enabled")
    photographed(page, tmp_path, name)
    page.keyboard.press("a")
    page.wait_for_selector("text=1 judged")


def test_too_few_votes_teach(voter: Voter) -> None:
    voter.begin(run="digits", n=3)
    voter.vote("a")
    said = voter.post("said").text
    assert "19 more votes" in said and re.search(r'id="learn" disabled', said)
    for minutes in ("nan", "0", "1e308", "-1", "x", ""):
        assert voter.post("learn", minutes=minutes).status_code == 400
    refused = voter.post("learn", minutes="0.1")
    assert refused.status_code == 400 and "19 more votes" in refused.text
    assert not (voter.folder.parent / "jobs").exists(), "nothing was begun"


def test_pairs_are_judged_once_more_with_their_sides_exchanged(voter: Voter) -> None:
    path = voter.folder / "digits-votes.jsonl"
    voter.begin(run="digits", n=12)
    assert voter.http.post("/studio/vote", data={"run": "digits", "again": "true", "n": "10"}).status_code == 400
    voter.show()
    for _ in range(12):
        voter.vote("a")
    assert "Judge 10 pairs once more" in voter.page and "new pairs" in voter.page
    first = read_votes(path).votes
    voter.begin(run="digits", again="true", n=10)
    assert "1 of 10" in voter.page
    for i in range(10):
        seen = [answer.content for answer in voter.items()]
        assert seen == [(path.parent / item).read_bytes() for item in (first[i].b, first[i].a)]
        voter.vote("b" if i else "a")
    assert "90% of 10" in voter.page and "Judge 10 pairs once more" not in voter.page
    again = read_votes(path)
    assert len(again.judged_again) == 10 and again.summary.within == 1
