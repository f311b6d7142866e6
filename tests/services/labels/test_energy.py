"""Energy: counters of a machine that is written as files, counters that begin anew, and what is estimated without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.engine.training.energy_counters import Counter, CounterGone, processor_counters
from afresh.engine.training.usage_meter import CORE_WATTS, EVERY, GPU_WATTS, Usage, UsageMeter
from afresh.runs.run import Run
from afresh.runs.usage import FILE, read_usage, usage_log
from afresh.services.labels.costs import together
from afresh.services.labels.label import Cost
from afresh.services.labels.run_label import label_of

RANGE = 262_143_328_850  # microjoules, of a processor of Intel


class Machine:
    """Two packages, of which the first has memory of its own, and zones that would be counted twice."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
        self.zones |= {"intel-rapl:1": "package-1", "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0"}
        for zone, name in self.zones.items():
            (root / zone).mkdir(parents=True)
            (root / zone / "name").write_text(f"{name}\n")
            (root / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
            self.set(zone, 0)

    def set(self, zone: str, microjoules: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "powercap")


def clock(*times: float) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_packages_and_their_memory_are_counted_once(machine: Machine) -> None:
    counters = processor_counters(machine.root)
    assert [c.name for c in counters] == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]
    for number, zone in enumerate(machine.zones, 1):
        machine.set(zone, 10**6 * 10**number)
    assert sum(c.update() for c in counters) == 10 + 1_000 + 10_000


def test_a_counter_that_begins_anew_goes_on(machine: Machine) -> None:
    machine.set("intel-rapl:0", RANGE - 3_000_000)
    first = processor_counters(machine.root)[0]
    for value, joules in ((RANGE - 1_000_000, 2.0), (4_000_000, 7.0), (9_000_000, 12.0)):
        machine.set("intel-rapl:0", value)
        assert first.update() == pytest.approx(joules, abs=1e-9)
    machine.set("intel-rapl:0", 0)
    assert first.update() == pytest.approx(12 + RANGE / 1e6 - 9)


def test_a_counter_of_no_range_cannot_go_back() -> None:
    values = iter((5.0, 9.0, 2.0))
    counter = Counter("GPU 0", lambda: next(values), None)
    counter.begin()
    assert counter.update() == 4
    with pytest.raises(CounterGone):
        counter.update()


def test_what_the_machine_tells_is_kept_beside_the_estimate(machine: Machine) -> None:
    meter = UsageMeter("cpu", machine.root, clock(0, 0, 10, 10), clock(100, 115))
    machine.set("intel-rapl:1", 400_000_000)
    usage = meter.read()
    assert (usage.seconds, usage.cpu_seconds, usage.joules) == (10, 15, 400)
    assert usage.estimated_joules == 15 * CORE_WATTS and usage.measured and "RAPL" in usage.method


def test_without_counters_busy_seconds_are_the_estimate(tmp_path: Path) -> None:
    usage = UsageMeter("cpu", tmp_path / "none", clock(0, 0, 10), clock(100, 115)).read()
    assert usage.joules == usage.estimated_joules == 15 * CORE_WATTS
    assert not usage.measured and usage.method == "processors estimated at 12 W a busy core"
    gpu = Usage(seconds=4, cpu_seconds=2, gpu_seconds=4, cpu_joules=9.0)
    assert gpu.joules == 9 + 4 * GPU_WATTS and not gpu.measured and "GPUs estimated" in gpu.method


def test_a_counter_that_goes_away_leaves_an_estimate_of_the_whole(machine: Machine) -> None:
    meter = UsageMeter("cpu", machine.root, clock(0, 0, 10, 20), clock(0, 5, 9))
    machine.set("intel-rapl:0", 7_000_000)
    assert meter.read().cpu_joules == 7
    (machine.root / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.read().cpu_joules is None


def test_a_zone_that_may_not_be_read_makes_all_an_estimate(machine: Machine) -> None:
    (machine.root / "intel-rapl:1" / "energy_uj").unlink()
    assert processor_counters(machine.root) == []


def test_counters_are_read_before_they_can_begin_anew_twice(machine: Machine) -> None:
    """At 20 kW, which no processor uses, a range lasts 13 seconds."""
    assert EVERY < RANGE / 1e6 / 20_000
    now = [0.0]
    meter = UsageMeter("cpu", machine.root, lambda: now[0], lambda: 0.0)
    for step in range(1, 41):  # a second each, of 20 kJ
        now[0] = float(step)
        machine.set("intel-rapl:0", 20_000_000_000 * step % RANGE)
        meter.poll()
    assert meter.read().joules == pytest.approx(800_000)


# --------------------------------------------------------------------------- runs


def copied(run: Path, folder: Path) -> Run:
    shutil.copytree(run, folder / "copy")
    return Run.open(folder / "copy")


@pytest.mark.parametrize(("kinds", "measured"), [((True, True), True), ((True, False), False), ((False,) * 2, False)])
def test_a_sum_is_measured_only_if_all_of_it_is(kinds: tuple[bool, bool], measured: bool) -> None:
    costs = [Cost(seconds=1, joules=3, estimated_joules=2, measured=k, method="RAPL" if k else "12 W") for k in kinds]
    whole = together(costs)
    assert whole.measured is measured and (whole.seconds, whole.joules, whole.estimated_joules) == (2, 6, 4)
    assert whole.method == "; ".join(dict.fromkeys(c.method for c in costs))


def test_sessions_add_up_over_resuming(text_run: Path, tmp_path: Path) -> None:
    run = copied(text_run, tmp_path)
    before = read_usage(run.path)
    assert len(before) == 1 and before[0].usage.cpu_seconds > 0 and {"evaluation", "save"} <= before[0].apart.keys()
    with usage_log(run.path, "cpu") as log:
        log.note("evaluation", 1.5)
    after = read_usage(run.path)
    assert after[:1] == before and len(after) == 2 and after[1].apart == {"evaluation": 1.5}
    stage = label_of(run).stages[0]
    assert stage.sessions == 2 and stage.apart["evaluation"] == pytest.approx(before[0].apart["evaluation"] + 1.5)
    assert stage.cost.seconds == pytest.approx(sum(s.usage.seconds for s in after))


def test_a_killed_session_keeps_what_was_saved_with_its_checkpoint(tmp_path: Path) -> None:
    """A process that is killed writes nothing more: what it had saved is the first session of the next one."""
    with usage_log(tmp_path, "cpu") as killed:
        killed.note("save", 2.0)
        killed.save()
        kept = read_usage(tmp_path)
        with usage_log(tmp_path, "cpu"):
            pass
        assert read_usage(tmp_path)[0] == kept[0] and len(read_usage(tmp_path)) == 2


def test_an_error_in_training_is_told_and_what_it_used_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="diverged"), usage_log(tmp_path, "cpu"):
        raise RuntimeError("diverged")
    assert len(read_usage(tmp_path)) == 1


def test_a_damaged_record_is_named(text_run: Path, tmp_path: Path) -> None:
    run = copied(text_run, tmp_path)
    for content in ("{", '{"sessions": [{"begun": 1}]}', '{"sessions": [], "more": 1}'):
        (run.path / FILE).write_text(content)
        with pytest.raises(UserError, match=FILE):
            label_of(run)


def test_a_run_of_an_earlier_version_is_estimated_from_its_log(text_run: Path, tmp_path: Path) -> None:
    run = copied(text_run, tmp_path)
    (run.path / FILE).unlink()
    label = label_of(run)
    assert label.training is not None and label.training.joules > 0 and not label.stages[0].known
    assert any("earlier version" in note for note in label.notes)
