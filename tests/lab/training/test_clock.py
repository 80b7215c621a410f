"""The step clock, on a clock of our own."""

import pytest
import torch

from freezeout.lab.training import DepthCost, Window, measured_saving
from freezeout.lab.training.clock import StepClock

CPU = torch.device("cpu")


class FakeTime:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(clock, time, steps, *, done=0, idle=5.0):
    """Takes steps of given (frozen, seconds); between steps time passes that must not count."""
    for frozen, seconds in steps:
        clock.begin_step(frozen)
        time.now += seconds
        clock.end_step()
        done += 1
        if clock.full:
            clock.close(done)
            time.now += idle
    return done


def test_every_step_is_timed_alone_on_a_cpu_and_idle_time_is_not_counted():
    time = FakeTime()
    clock = StepClock(CPU, now=time)
    run(clock, time, [(0, 1.0), (0, 3.0), (2, 0.5)])
    assert clock.windows == (
        Window(1, 1, 1.0, 0),
        Window(2, 1, 3.0, 0),
        Window(3, 1, 0.5, 2),
    )
    assert clock.total_since(0) == 4.5
    assert clock.total_since(1) == 3.5


def test_windows_share_the_time_of_their_steps():
    time = FakeTime()
    clock = StepClock(CPU, length=2, now=time)
    done = run(clock, time, [(0, 1.0), (0, 3.0), (0, 7.0)])
    assert clock.windows == (Window(2, 2, 2.0, 0),)
    clock.close(done)
    assert clock.windows[1] == Window(3, 1, 7.0, 0)
    clock.close(done)
    assert len(clock.windows) == 2


def test_a_step_that_was_begun_but_never_taken_is_not_a_window():
    time = FakeTime()
    clock = StepClock(CPU, now=time)
    clock.begin_step(0)
    time.now += 9.0
    clock.close(0)
    assert clock.windows == ()
    run(clock, time, [(0, 1.0)])
    assert clock.windows == (Window(1, 1, 1.0, 0),)


def test_saving_is_against_the_median_unfrozen_step():
    time = FakeTime()
    clock = StepClock(CPU, now=time)
    assert clock.saved_seconds() is None
    assert clock.pace() is None
    run(clock, time, [(0, 2.0), (0, 2.0), (0, 50.0), (1, 1.5), (1, 1.5), (3, 0.5)])
    # The outlier of 50 does not count: 3 steps at 2, 2 at 1.5, 1 at 0.5, against 6 at 2.
    costs = [DepthCost(0, 3, 2.0), DepthCost(1, 2, 1.5), DepthCost(3, 1, 0.5)]
    assert clock.costs() == costs
    assert measured_saving(costs) == pytest.approx(clock.saved_seconds() / (6 * 2.0))
    assert clock.saved_seconds() == pytest.approx(6 * 2.0 - (3 * 2.0 + 2 * 1.5 + 0.5))
    assert clock.pace() == 0.5


def test_without_unfrozen_steps_no_saving_is_claimed():
    time = FakeTime()
    clock = StepClock(CPU, now=time)
    run(clock, time, [(1, 2.0), (2, 1.0)])
    assert clock.saved_seconds() is None


def test_state_goes_through_a_file_unchanged(tmp_path):
    time = FakeTime()
    clock = StepClock(CPU, now=time)
    run(clock, time, [(0, 0.1), (1, 0.2)])
    torch.save(clock.state_dict(), tmp_path / "clock.pt")
    twin = StepClock(CPU)
    twin.load_state_dict(torch.load(tmp_path / "clock.pt", weights_only=True))
    assert twin.windows == clock.windows
    empty = StepClock(CPU)
    empty.load_state_dict(StepClock(CPU).state_dict())
    assert empty.windows == ()


# --- the measured saving ------------------------------------------------------------------------


def test_measured_saving_is_the_formula():
    costs = [DepthCost(0, 100, 0.2), DepthCost(3, 50, 0.14), DepthCost(1, 25, 0.18)]
    spent = 100 * 0.2 + 50 * 0.14 + 25 * 0.18
    assert measured_saving(costs) == pytest.approx(1 - spent / (175 * 0.2), rel=1e-12)
    assert measured_saving(costs) == pytest.approx(0.1)


def test_measured_saving_is_negative_when_steps_grow_slower():
    assert measured_saving([DepthCost(0, 1, 0.1), DepthCost(1, 1, 0.3)]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    "costs",
    [
        [],
        [DepthCost(0, 10, 0.1)],
        [DepthCost(1, 10, 0.1), DepthCost(2, 10, 0.1)],
        [DepthCost(0, 0, 0.1), DepthCost(1, 10, 0.1)],
        [DepthCost(0, 10, 0.1), DepthCost(1, 0, 0.1)],
        [DepthCost(0, 10, 0.0), DepthCost(1, 10, 0.1)],
    ],
)
def test_measured_saving_is_none_without_something_to_compare(costs):
    assert measured_saving(costs) is None
