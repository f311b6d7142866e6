"""The progress of what comes before training: told at once, with the time that is left once it is known."""

from __future__ import annotations

from afresh.core.events import Event, listening
from afresh.engine.training.preparation import Preparation


def test_stages_are_told_as_they_begin_with_the_time_left_of_each() -> None:
    now, heard = [100.0], list[Event]()
    with listening(heard.append):
        progress = Preparation("mine", 90.0, lambda: now[0])
        progress.begin("learning a reward")
        for share in (0.0, 0.25, 0.5):
            now[0] = 100.0 + 120 * share
            progress.report(share)
        progress.begin("trying steps")
        progress.end()
    notes = [e.text for e in heard if e.kind == "note"]
    assert notes == ["mine: learning a reward ...", "mine: trying steps ..."]
    told = [e for e in heard if e.kind == "progress"]
    assert [round(e.fields["seconds_left"]) for e in told if e.fields["seconds_left"] is not None] == [90, 60]
    assert told[3].text == "mine: learning a reward: 50%, 1:00 left of this, 1:10 elapsed"
    assert told[4].text == "mine: learning a reward: done, 1:10 elapsed"
    assert [e.fields["ended"] for e in told] == [False, False, False, False, True, False, True]
