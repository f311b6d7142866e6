"""A browser without a screen, for the page that `afresh compare` opens."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import httpx

from afresh.faces.http import vote
from afresh.runs.run import Run
from afresh.verbs.annotate import PairRequest, Session


class Voter:
    """The browser that the address of a terminal lets in."""

    def __init__(self, address: str) -> None:
        host, _, _ = address.partition("/studio/")
        self.http = httpx.Client(base_url=host, timeout=60, follow_redirects=True)
        self.entered = self.http.get(address)
        self.session, self.page = str(self.entered.url), self.entered.text

    @property
    def pair(self) -> str | None:
        """The open pair; None if all are judged."""
        found = re.search(r'data-pair="(\w+)"', self.page)
        return None if found is None else found[1]

    def items(self) -> list[bytes]:
        """What the two sides show."""
        return [self.http.get(path).content for path in re.findall(r'<(?:img|audio)[^>]* src="([^"]+)"', self.page)]

    def post(self, what: str, **fields: Any) -> httpx.Response:
        answer = self.http.post(f"{self.session}/{what}", data=fields)
        if answer.status_code == 200:
            self.page = answer.text
        return answer

    def vote(self, said: str) -> None:
        answer = self.post("answer", pair=self.pair, vote=said)
        assert answer.status_code == 200, answer.text


@contextmanager
def page_votes(act: Callable[[Voter], None]) -> Iterator[None]:
    """In place of a person: whenever `afresh compare` serves its page, a browser votes with `act` and then finishes."""
    real, failed = vote.serve, list[BaseException]()

    def visit(address: str) -> None:
        voter = Voter(address)
        try:
            act(voter)
        except BaseException as error:
            failed.append(error)
        finally:
            voter.post("end")

    def served(
        session: Session, runs: Sequence[Run], wish: PairRequest, port: int, ready: Callable[[str], None]
    ) -> None:
        def person(address: str) -> None:
            ready(address)
            threading.Thread(target=visit, args=(address,), daemon=True).start()

        real(session, runs, wish, port, person)

    with patch.object(vote, "serve", served):
        yield
    if failed:
        raise failed[0]
