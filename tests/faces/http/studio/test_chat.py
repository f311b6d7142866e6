"""Conversations in the studio: kept, listed, named, taken along, branched and answered again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.requests.text import TextPiece
from afresh.faces.http.rights import Holder
from afresh.faces.studio import answers
from afresh.verbs.conversations import Conversation, Conversations
from tests import needs
from tests.faces.http.conftest import OWNER, serving

SCRIPT = "<script>alert(1)</script>"
MARKED = "# Steps\n\nUse `x` in **this**:\n\n```python\nfor i in range(3):\n    print(i)\n```\n\n|a|b|\n|-|-|\n|1|2|\n"
Open = Callable[..., Any]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


class Talker:
    """A browser without a screen."""

    def __init__(self, http: httpx.Client, works: Path) -> None:
        self.http, self.chats = http, Conversations(works / "chats")

    def say(self, text: str, **fields: str) -> httpx.Response:
        """Say something in a new conversation and wait for the answer; the page is that of the conversation."""
        answer = self.http.post("/studio/chat", data={"run": "chat", "message": text, "setting.length": "8", **fields})
        if answer.status_code == 303:
            self.where = answer.headers["location"]
            self.id = self.where.rpartition("/")[2]
            self.wait()
        return answer

    def post(self, what: str = "", **fields: str) -> httpx.Response:
        return self.http.post(self.where + what, data=fields)

    def wait(self) -> None:
        until = time.monotonic() + 60
        while "data-writing" in self.http.get(self.where).text:
            assert time.monotonic() < until
            time.sleep(0.02)

    @property
    def page(self) -> str:
        return self.http.get(self.where).text

    @property
    def kept(self) -> Conversation:
        return self.chats.get(self.id)


@pytest.fixture
def talker(runs: Path, tmp_path: Path) -> Iterator[Talker]:
    server = serving(ServeSettings([runs], memory=2**30, keys=OWNER, works=tmp_path / "works"))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield Talker(client, tmp_path / "works")
    next(server, None)


def answering(monkeypatch: pytest.MonkeyPatch, text: str, until: threading.Event | None = None) -> None:
    """Every answer is this text; it is whole only once `until` is set."""

    def respond(served: Any, conversation: Conversation, put: Callable[[Any], None]) -> None:
        put(TextPiece(0, text))
        if until is not None:
            assert until.wait(60)

    monkeypatch.setattr(answers, "respond_to", respond)


def test_a_conversation_is_kept_and_goes_on(talker: Talker) -> None:
    talker.say("Say 3?", system="Be brief.", **{"setting.temperature": "0"})
    assert [m.role for m in talker.kept.messages] == ["user", "assistant"]
    assert talker.kept.settings == {"length": 8, "temperature": 0} and talker.kept.system == "Be brief."
    assert talker.post(message="Say 4?", system="Be long.").status_code == 303
    talker.wait()
    assert [m.text for m in talker.kept.messages if m.role == "user"] == ["Say 3?", "Say 4?"]
    assert talker.kept.system == "Be long." and talker.kept.settings == {}
    assert "Say 3?" in talker.page and "Say 3?" in talker.http.get("/studio/chat").text, "it is listed"


def test_a_run_that_answers_is_led_to_its_conversations(talker: Talker) -> None:
    led = talker.http.get("/studio/create", params={"run": "chat"})
    assert led.status_code == 303 and led.headers["location"] == "/studio/chat?run=chat"
    assert "/studio/chat?run=chat" in talker.http.get("/studio/").text


def test_answers_are_given_again_and_chosen(talker: Talker) -> None:
    talker.say("Say 3?")
    assert talker.post("/again").status_code == 303
    talker.wait()
    assert "2 of 2" in talker.page and len(talker.kept.messages[1].texts) == 2
    talker.post("/choose", index="1", answer="0")
    assert "1 of 2" in talker.page and talker.post("/choose", index="1", answer="2").status_code == 400


def test_it_is_branched_from_any_message(talker: Talker) -> None:
    talker.say("Say 3?")
    talker.post(message="Say 4?")
    talker.wait()
    for index, said, draft in ((1, ["Say 3?"], ""), (2, ["Say 3?"], "Say 4?")):
        branch = talker.http.post(f"{talker.where}/branch", data={"index": str(index)}).headers["location"]
        kept = talker.chats.get(branch.rpartition("/")[2])
        assert [m.text for m in kept.messages if m.role == "user"] == said and kept.draft == draft
        assert "branched from" in talker.http.get(branch).text
        assert kept.title == ("Edit of: Say 4?" if draft else talker.kept.title)
    assert len(talker.kept.messages) == 4
    kept = len(talker.chats.listed())
    edited = talker.http.post(f"{talker.where}/branch", data={"index": "0"}).headers["location"]
    assert ">Say 3?</textarea>" in talker.http.get(edited).text
    assert len(talker.chats.listed()) == kept, "nothing is kept of a conversation in which nothing was said"


def test_it_is_named_taken_along_thrown_away_and_brought_back(talker: Talker) -> None:
    talker.say("Say 3?")
    assert talker.post("/rename", title=f" {SCRIPT}  x ").status_code == 303
    assert talker.kept.title == f"{SCRIPT} x" and SCRIPT not in talker.page
    assert talker.post("/rename", title=" ").status_code == 400
    text = talker.http.get(f"{talker.where}/download/md")
    assert "attachment" in text.headers["content-disposition"] and "**You**\n\nSay 3?" in text.text
    told = talker.http.get(f"{talker.where}/download/json").json()
    assert told["messages"][0] == {"role": "user", "content": "Say 3?"}
    assert talker.http.get(f"{talker.where}/download/exe").status_code == 404
    assert talker.post("/bin").status_code == 303 and not talker.chats.listed()
    assert "x" in talker.http.get("/studio/chat/bin").text
    talker.post("/restore")
    assert len(talker.chats.listed()) == 1
    talker.post("/bin")
    assert talker.http.post("/studio/chat/bin/empty").status_code == 400
    talker.http.post("/studio/chat/bin/empty", data={"sure": "true"})
    assert talker.http.get(talker.where).status_code == 404


def test_what_was_said_is_there_after_the_server_was_killed(
    talker: Talker, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second server sees what the first had on the disk while it wrote an answer."""
    never = threading.Event()
    answering(monkeypatch, "It is", never)
    where = talker.http.post("/studio/chat", data={"run": "chat", "message": "Say 3?"}).headers["location"]
    assert "data-writing" in talker.http.get(where).text
    other = serving(ServeSettings([runs], memory=2**30, keys=OWNER, works=tmp_path / "works"))
    with httpx.Client(base_url=next(other), timeout=60) as client:
        page = client.get(where).text
        assert "Say 3?" in page and "has no answer" in page and "Answer it now" in page
        assert client.post(where, data={"message": "More?"}).status_code == 409
    never.set()
    next(other, None)


def test_an_answer_goes_on_when_its_page_is_left_and_is_stopped_where_it_is(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = threading.Event()
    answering(monkeypatch, "It is", whole)
    talker.where = talker.http.post("/studio/chat", data={"run": "chat", "message": "Say 3?"}).headers["location"]
    talker.id = talker.where.rpartition("/")[2]
    with talker.http.stream("GET", f"{talker.where}/answer") as stream:
        assert next(line for line in stream.iter_lines() if "It is" in line)
    assert talker.post(message="More?").status_code == 409, "one answer at a time"
    assert talker.post("/stop").status_code == 204
    talker.wait()
    whole.set()
    assert talker.kept.messages[1].text == "It is" and "stopped before its end" in talker.page


def test_an_answer_that_ends_while_its_page_is_made_is_not_missing(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows the answer, or waits for it; it never says that there is none."""
    whole, read, begun = threading.Event(), Conversations.get, list[answers.Answer]()

    def get(self: Conversations, id_: str) -> Conversation:
        conversation = read(self, id_)
        whole.set()
        until = time.monotonic() + 60
        while not begun[0].ended:
            assert time.monotonic() < until
            time.sleep(0.01)
        return conversation

    class Recorded(answers.Answer):
        def __init__(self) -> None:
            super().__init__()
            begun.append(self)

    answering(monkeypatch, "It is", whole)
    monkeypatch.setattr(answers, "Answer", Recorded)
    where = talker.http.post("/studio/chat", data={"run": "chat", "message": "Say 3?"}).headers["location"]
    monkeypatch.setattr(Conversations, "get", get)
    page = talker.http.get(where).text
    assert "data-writing" in page and "has no answer" not in page


def test_a_failure_is_said_and_nothing_is_lost(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    talker.say("x" * 4000)
    assert 'role="alert"' in talker.page and talker.kept.waits and "Answer it now" in talker.page


@pytest.mark.parametrize("fields", [
    {"run": "none"}, {"run": "digits"}, {"run": "stories"}, {"run": ""}, {"message": " "}, {"message": "a", "x": "y"},
    {"setting.temperature": "hot"},
])  # fmt: skip
def test_what_cannot_be_said_is_refused(talker: Talker, fields: dict[str, str]) -> None:
    answer = talker.http.post("/studio/chat", data={"run": "chat", "message": "Say 3?", **fields})
    assert 400 <= answer.status_code < 500 and not talker.chats.listed()


def test_words_of_a_model_stay_words(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, f"{SCRIPT} ![x](http://evil.example/x.png) [y](javascript:alert(1)) </template><b>")
    talker.say(SCRIPT)
    assert SCRIPT not in talker.page and 'evil.example/x.png"' in talker.page and "<img" not in talker.page
    assert 'href="javascript' not in talker.page and "</template><b>" not in talker.page


def test_with_keys_everybody_has_their_own(runs: Path, tmp_path: Path) -> None:
    keys = Keys({"a-key-of-anns-own": Holder("ann"), "a-key-of-bobs-own": Holder("bob")})
    server = serving(ServeSettings([runs], memory=2**30, keys=keys, works=tmp_path))
    address = next(server)
    ann, bob = (
        Talker(httpx.Client(base_url=address, timeout=60, headers={"x-api-key": key}), tmp_path) for key in keys.holders
    )
    ann.say("Say 3?")
    assert "Say 3?" in ann.page and "Say 3?" not in bob.http.get("/studio/chat").text
    for what in ("", "/answer", "/download/md"):
        assert bob.http.get(ann.where + what).status_code == 404
    for what in ("", "/again", "/bin", "/rename", "/branch", "/choose"):
        data = {"message": "x", "title": "x", "index": "0", "answer": "0"} if what else {"message": "x"}
        assert bob.http.post(ann.where + what, data=data).status_code == 404
    next(server, None)


# --------------------------------------------------------------------------- in a browser


def answered(page: Any, number: int) -> None:
    page.wait_for_selector(f".message.assistant:not([data-writing]) >> nth={number - 1}")


def test_a_conversation_in_a_browser(
    talker: Talker, open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said, answered again, named, branched, reloaded and gone back to."""
    answering(monkeypatch, MARKED)
    page = open_page(f"{talker.http.base_url}/studio/")
    with page.expect_navigation():
        page.click(".card >> text=chat")
    page.fill("#message", "How do I **count**?")
    page.press("#message", "Enter")
    answered(page, 1)
    assert page.locator(".said").inner_text() == "How do I **count**?"
    assert "print(i)" in page.locator(".answer pre code").inner_text() and page.locator(".answer td").count() == 2
    with page.expect_navigation():
        page.click("text=Answer again")
    page.wait_for_selector("text=2 of 2")
    page.click("summary >> text=Rename")
    page.fill("#title", "Counting")
    with page.expect_navigation():
        page.click(".rename button")
    assert page.locator("h1").inner_text() == "Counting" and "Counting" in page.locator(".chats-list").inner_text()
    page.screenshot(path=tmp_path / "chat.png", full_page=True)
    first = page.url
    with page.expect_navigation():
        page.click("text=Edit")
    assert page.input_value("#message") == "How do I **count**?" and page.url != first
    page.go_back()
    page.wait_for_selector("text=2 of 2")
    page.reload()
    assert page.locator(".message").count() == 2
    with page.expect_navigation():
        page.click("text=Move to the bin")
    with page.expect_navigation():
        page.click("text=Restore")
    assert page.locator(".message").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True])
def test_conversations_are_seen_by_everybody(
    talker: Talker, open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, phone: bool
) -> None:
    """No fault of accessibility, of whatever weight; on a telephone nothing is cut off or lies under the navigation."""
    axe = needs.package("axe_playwright_python.sync_playwright", "axe-playwright-python").Axe()
    answering(monkeypatch, MARKED + "\n" + "wide" * 100)
    talker.say("Tell me how to count, and show me a program for it.")
    talker.post("/again")
    talker.wait()
    options = {"color_scheme": scheme, "reduced_motion": "reduce"} | (PHONE if phone else {})
    page, faults = open_page(f"{talker.http.base_url}{talker.where}", **options), {}
    for name, path in (("talk", talker.where), ("new", "/studio/chat"), ("bin", "/studio/chat/bin")):
        page.goto(f"{talker.http.base_url}{path}")
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        faults[path] = [(v["id"], v["nodes"][0]["html"]) for v in found]
        page.screenshot(path=tmp_path / f"{name}-{scheme}{'-phone' if phone else ''}.png", full_page=True)
        if phone:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not any(faults.values()), faults


def test_a_message_stays_when_the_server_is_gone(talker: Talker, browser: Any, runs: Path, tmp_path: Path) -> None:
    page = browser.new_page(base_url=str(talker.http.base_url))
    page.goto("/studio/chat?run=chat")
    page.wait_for_function("document.getElementById('say') && 'htmx-internal-data' in document.getElementById('say')")
    page.route("**/studio/chat", lambda route: route.abort())
    page.fill("#message", "Say 3?")
    page.press("#message", "Enter")
    page.wait_for_selector("#chat-error .notice")
    assert "does not answer" in page.locator("#chat-error").inner_text() and page.input_value("#message") == "Say 3?"
    page.close()
