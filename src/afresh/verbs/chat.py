"""The verb `chat`: a conversation with a model that learnt to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.text.chat import Turns
from afresh.engine.sampling.request import Request, converses, prompt_ids
from afresh.engine.sampling.stream import Stream
from afresh.runs.run import Run
from afresh.verbs.sample import Sampler


class Chat:
    """A conversation with a run that was trained or tuned on conversations. `turns` holds what was said so far.

    Raises UserError if the run was not.
    """

    def __init__(self, run: Run, system: str = "", seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """`system` is a message that stands before the conversation; `settings` are those of sampling."""
        if not converses(run.encoder, run.space):
            raise UserError(
                f"{run.path} was not trained on conversations, so it has not learnt to answer. Sample from it: "
                "`model.sample()`; or tune a model of texts on questions and answers: `afresh.tune(BASE, PATH)`.",
                "not_chat",
                path=str(run.path),
            )
        self.run, self.seed, self.settings = run, seed, dict(settings or {})
        self.system: Turns = (("system", system),) if system else ()
        self.turns: Turns = ()

    def __repr__(self) -> str:
        return f"Chat({str(self.run.path)!r}, {counted(len(self.turns), 'turn')})"

    def ask(self, text: str) -> Iterator[str]:
        """The answer to a message, in pieces as it is written. If the caller leaves the loop early, the conversation
        goes on after what was written until then. Raises UserError if the message is empty, or as `Model.sample`."""
        if not text.strip():
            raise UserError("The message is empty. Write what the model is to answer.")
        self.make_room(text)
        request = Request(text, turns=self.system + self.turns)
        seed = self.seed + len(self.turns)  # answers to the same message differ
        answer = ""
        try:
            for piece in Stream(lambda on_text: Sampler(self.run, 1, request, seed, self.settings, on_text)):
                answer += piece
                yield piece
        finally:
            if answer:
                self.turns = (*self.turns, ("user", text), ("assistant", answer))

    def make_room(self, text: str) -> None:
        """Forget the earliest messages until the rest and `text` fit in the model's context."""
        context, all_turns = self.run.space.shape[0], self.turns
        while self.turns and len(prompt_ids(self.run.encoder, text, True, self.system + self.turns)) > context:
            self.turns = self.turns[2:]
        if len(self.turns) < len(all_turns):
            events.note(
                f"The conversation is longer than the model's context of {context:,} tokens: the earliest messages are "
                "left out.",
                "chat_shortened",
            )


def takes_system(run: Run) -> bool:
    """Whether a message before the conversation changes what the model reads: some chat templates reject it or leave
    it out."""
    try:
        alone, told = (prompt_ids(run.encoder, "a", True, turns) for turns in ((), (("system", "b"),)))
    except UserError:
        return False
    return alone.tolist() != told.tolist()
