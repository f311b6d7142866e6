"""The time left against simulated runs whose end is known, and what is printed where."""

import json
from collections.abc import Callable, Sequence

import pytest

from afresh.core.events import Event, ignore, listening
from afresh.engine.training.progress import ProgressMeter, Smooth, TimeLeft, clock, ranks_line, shown_metrics, speed
from afresh.engine.training.rank_pace import paces_of


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def worst_error(
    step_seconds: Callable[[int], float],
    total: int,
    after: int,
    kinds: Sequence[tuple[str, int, Callable[[int], float]]] = (),
    start: int = 0,
) -> float:
    """Run a simulated training; the largest |estimate - truth| / truth at steps from `after` to 95% of it.

    `kinds`: (name, period, seconds by step), each also at the last step, as the loop has it.
    """
    now = 5.0
    left = TimeLeft(total, start, now)
    estimates: list[tuple[float, float | None]] = []
    for step in range(start + 1, total + 1):
        now += step_seconds(step)
        left.stepped(now)
        for name, every, seconds in kinds:
            if step % every == 0 or step == total:
                took = seconds(step)
                now += took
                left.interrupted(name, took, now)
        if after <= step <= start + 0.95 * (total - start):
            estimates.append((now, left.seconds(now)))
    assert left.seconds(now) == 0.0
    return max(abs(e - (now - t)) / (now - t) for t, e in estimates if e is not None)


def test_constant_steps_are_foreseen_exactly_from_the_second_on() -> None:
    assert worst_error(lambda step: 0.25, 400, after=2) < 1e-9


def test_slow_first_steps_do_not_count() -> None:
    # Compilation: 40 s, 12 s and 3 s, then half a second each.
    slow = {1: 40.0, 2: 12.0, 3: 3.0}
    assert worst_error(lambda step: slow.get(step, 0.5), 300, after=4) < 0.05


def test_a_compilation_later_than_the_warm_up_does_not_count() -> None:
    assert worst_error(lambda step: 30.0 if step == 20 else 0.1, 2000, after=21) < 0.05


def test_steps_that_are_slow_now_and_then_do_count() -> None:
    # A regulariser every 16th step makes that one three times as long: a median would be 11% too short.
    assert worst_error(lambda step: 0.3 if step % 16 == 0 else 0.1, 4000, after=200) < 0.05


def test_noisy_steps() -> None:
    noise = [0.08, 0.11, 0.1, 0.13, 0.09, 0.1, 0.12, 0.07]
    assert worst_error(lambda step: noise[step * 5 % 8], 1000, after=50) < 0.05


@pytest.mark.parametrize("total", [2000, 2077])
def test_interruptions_are_added_once_seen(total: int) -> None:
    kinds = [
        ("evaluation", 100, lambda step: 9.0 if step == 100 else 4.0),  # the first one warms up
        ("preview", 250, lambda step: 6.0),
        ("save", 200, lambda step: 1.5),
    ]
    assert worst_error(lambda step: 0.1, total, after=250, kinds=kinds) < 0.05


def test_interruptions_of_a_resumed_run() -> None:
    kinds = [("evaluation", 100, lambda step: 5.0)]
    assert worst_error(lambda step: 0.1, 3000, after=1100, kinds=kinds, start=950) < 0.05


def test_a_machine_that_slows_down_is_believed_within_a_minute() -> None:
    # From step 1000 on every step takes twice as long; 60 s later the estimate has followed.
    def seconds(step: int) -> float:
        return 0.1 if step <= 1000 else 0.2

    assert worst_error(seconds, 4000, after=1310) < 0.05


def test_interruptions_do_not_slow_the_rate() -> None:
    left = TimeLeft(100, now=0.0)
    now = 0.0
    for _ in range(10):
        now += 2.0
        left.stepped(now)
        now += 7.0
        left.interrupted("save", 7.0, now)
    assert left.step_seconds() == pytest.approx(2.0)


def test_time_runs_down_between_events_but_not_to_nothing() -> None:
    left = TimeLeft(20, now=0.0)
    for i in range(1, 11):
        left.stepped(10.0 * i)
    assert left.seconds(100.0) == pytest.approx(100.0)
    assert left.seconds(104.0) == pytest.approx(96.0)
    assert left.seconds(500.0) == pytest.approx(90.0)  # a step that hangs: nine more are certain


def test_rolling_back_makes_more_to_do() -> None:
    left = TimeLeft(100, now=0.0)
    for i in range(1, 51):
        left.stepped(float(i))
        if i % 10 == 0:
            left.interrupted("save", 0.0, float(i))
    left.stepped(51.0, at=41)
    assert left.seconds(51.0) == pytest.approx(59.0)


def test_a_reward_is_shown_first_and_no_squares() -> None:
    assert shown_metrics({"loss": 1, "vae/kl": 2, "mse": 3, "reward": 4, "policy/gradient_norm": 1}) == [
        "reward",
        "vae/kl",
    ]
    assert shown_metrics({"policy/reward": 4, "policy/reward2": 16, "policy/kl": 1}) == ["policy/reward", "policy/kl"]
    assert shown_metrics({"reward": 4, "reward2": 16, "distance_from_base": 1}) == ["reward", "distance_from_base"]
    assert shown_metrics({"loss": 1, "layer2": 3}) == ["layer2"]


def test_nothing_is_claimed_before_anything_is_known() -> None:
    left = TimeLeft(10, now=0.0)
    assert left.seconds(3.0) is None
    left.stepped(30.0)
    assert left.seconds(30.0) is None
    left.stepped(31.0)
    assert left.seconds(31.0) == pytest.approx(8.0)


def test_smoothing_is_unbiased_from_the_first_value_and_survives_nan() -> None:
    mean = Smooth(20)
    assert mean.mean() is None
    mean.add(3.0)
    assert mean.mean() == pytest.approx(3.0)
    mean.add(float("nan"))
    mean.add(3.0)
    assert mean.mean() == pytest.approx(3.0)
    for _ in range(400):
        mean.add(5.0)
    assert mean.mean() == pytest.approx(5.0, abs=1e-6)


def test_words() -> None:
    assert [clock(s) for s in (None, 0.4, 61.6, 3599.7, 7325)] == ["?:??", "0:00", "1:02", "1:00:00", "2:02:05"]
    assert speed(12345.6, "tokens") == "12,300 tokens/s"
    assert speed(99.96, "pictures") == "100 pictures/s"
    assert speed(0.0421, "pictures") == "0.0421 pictures/s"
    assert speed(None, "tokens") == "? tokens/s"


def drive(meter: ProgressMeter, now: Clock, steps: int, seconds: float) -> list[Event]:
    events: list[Event] = []
    with listening(events.append), meter:
        for _ in range(steps):
            now.time += seconds
            meter.step({"loss": 2.0, "vae/kl": 0.5, "vae/gradient_norm": 9.0})
    return events


def test_events_say_how_far_training_has_come() -> None:
    now = Clock()
    events = drive(ProgressMeter(100, "tokens", 512, "books", now=now), now, 100, 0.5)
    assert {(e.kind, e.code) for e in events} == {("progress", "training")}
    assert [e.fields["step"] for e in events] == [0, *range(1, 101), 100] and events[-1].fields["ended"]
    assert not any(e.fields["ended"] for e in events[:-1])
    assert events[20].text == "books: step 20/100 (20%), loss 2, kl 0.5, 1,020 tokens/s, 0:40 left, 0:10 elapsed"
    assert events[-1].text == "books: step 100/100 (100%), loss 2, kl 0.5, 1,020 tokens/s, 0:50 elapsed"
    json.dumps([e.json() for e in events])


def test_quick_steps_raise_few_events() -> None:
    now = Clock()
    events = drive(ProgressMeter(1000, "images", 8, "x", now=now), now, 1000, 0.01)
    assert 30 <= len(events) <= 45  # four a second


def test_the_time_left_counts_interruptions_and_a_new_plan() -> None:
    now = Clock()
    meter = ProgressMeter(40, "images", 8, "digits", now=now)
    with listening(ignore), meter:
        assert meter.seconds_left() is None and meter.rate() is None
        for _ in range(20):
            now.time += 1.0
            meter.step({"loss": 0.25})
        now.time += 3.0
        meter.overhead(3.0, "save")  # after 20 steps, so one more is to come
        assert meter.seconds_left() == pytest.approx(23.0)
        assert meter.rate() == pytest.approx(8.0)
        meter.replan(30)
        assert meter.seconds_left() == pytest.approx(13.0)


def test_the_speed_of_each_process_is_told_without_its_waiting() -> None:
    now, events = Clock(), list[Event]()
    meter = ProgressMeter(40, "images", 8, "digits", now=now)
    with listening(events.append), meter:
        meter.paces(paces_of([0.25, 0.4], ["north", "south"], 8, {1}))
    assert events[0].fields["ranks"] == [] and ranks_line(events[0].fields) == ""
    assert events[-1].fields["ranks"] == [
        {"rank": 0, "host": "north", "seconds": 0.25, "rate": 16.0, "slow": False},
        {"rank": 1, "host": "south", "seconds": 0.4, "rate": 10.0, "slow": True},
    ]
    assert ranks_line(events[-1].fields) == (
        "process, without waiting for others: 0 on north 16 images/s, 1 on south 10 images/s (slow)"
    )


def test_of_many_processes_the_slowest_and_the_fastest_are_told() -> None:
    hosts = [f"host{r // 8}" for r in range(64)]
    meter = ProgressMeter(40, "images", 640, "digits")
    meter.paces(paces_of([1 + r / 10 for r in range(64)], hosts, 640, set()))
    assert ranks_line({"ranks": meter.ranks, "unit": "images"}) == (
        "slowest and fastest of 64 processes, without waiting for others: 63 on host7 1.37 images/s, "
        "0 on host0 10 images/s"
    )
