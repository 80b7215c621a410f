"""The number of threads is that with which a step is fastest, on clocks made for the tests."""

import pytest
import torch
from torch import nn

from freezeout import measure_costs, split_layers
from freezeout.costs import choose_threads, measure_threads
from freezeout.costs.threads import thread_counts, time_threads
from tests.costs.costly import prices
from tests.costs.networks import measured


class Machine:
    """A machine on which a step takes a time that depends on the threads and on the steps so far.

    Attributes:
        now: Seconds.
        taken: Threads of every step, in order.
    """

    def __init__(self, seconds):
        self.now = 0.0
        self.threads = 0
        self.taken = []
        self._seconds = seconds

    def step(self):
        self.now += self._seconds(self.threads, len(self.taken))
        self.taken.append(self.threads)

    def use(self, count):
        self.threads = count

    def time(self, most, seconds=2.0):
        return time_threads(
            self.step, thread_counts(most), seconds=seconds, now=lambda: self.now, use=self.use
        )


@pytest.mark.parametrize(
    ("most", "counts"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (12, (1, 2, 4, 8, 12))],
)
def test_powers_of_two_and_the_most_are_tried(most, counts):
    assert thread_counts(most) == counts


def test_a_busy_core_makes_many_threads_slow():
    machine = Machine(lambda threads, step: 2.5 if threads == 2 else 0.013)
    found = machine.time(2)
    assert found == pytest.approx({1: 0.013, 2: 2.5})
    assert choose_threads(found) == 1
    assert machine.taken.count(2) == 1  # one such step is enough
    assert machine.now < 3.0


def test_a_step_that_scales_takes_all_cores():
    machine = Machine(lambda threads, step: 0.1 / threads + 0.001)
    assert choose_threads(machine.time(16)) == 16


def test_a_long_step_is_not_tried_with_few_threads_once_they_are_slower():
    machine = Machine(lambda threads, step: 320.0 / threads)
    assert choose_threads(machine.time(64)) == 64
    assert set(machine.taken) == {64, 32}
    assert len(machine.taken) == 2


def test_half_of_the_cores_where_the_other_half_is_taken():
    machine = Machine(lambda threads, step: 1.0 if threads > 4 else 0.02 / threads)
    assert choose_threads(machine.time(8)) == 4


def test_starting_threads_and_single_slow_steps_do_not_count():
    def seconds(threads, step):
        new = machine.taken.count(threads) == 0
        return 0.02 / threads + 0.025 * new + 0.2 * (step == 9)

    machine = Machine(seconds)
    found = machine.time(4)
    assert found == pytest.approx({1: 0.02, 2: 0.01, 4: 0.005})


def test_no_more_time_is_spent_than_there_is():
    machine = Machine(lambda threads, step: 0.3)
    found = machine.time(4, seconds=2.0)
    assert {*found} == {1, 2, 4}
    assert 1.8 <= machine.now <= 3.0
    quick = Machine(lambda threads, step: 0.001)
    quick.time(4)
    assert quick.now < 0.05


def test_all_take_turns():
    machine = Machine(lambda threads, step: 0.01)
    machine.time(4)
    assert machine.taken[6:12] == [4, 2, 1] * 2


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 10.0}, 1),
        ({1: 10.0, 2: 9.0}, 1),  # not clearly better: it may be worse in a minute
        ({1: 10.0, 2: 7.0}, 2),
        ({1: 10.0, 2: 9.0, 4: 7.5}, 4),
        ({1: 10.0, 2: 7.0, 4: 6.5, 8: 6.0}, 2),
        ({1: 10.0, 2: 7.0, 4: 20.0, 8: 5.0}, 8),
        ({2: 3.0, 4: 3.0}, 2),
    ],
)
def test_the_fewest_that_none_clearly_beats(seconds, chosen):
    assert choose_threads(seconds) == chosen


def test_a_rehearsal_leaves_threads_weights_and_random_state_as_they_were():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(net.parameters())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    found = measure_threads(
        net,
        split_layers(net),
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        most=2,
        loss=None,
        optimizer=optimizer,
        autocast=None,
    )
    assert {*found} <= {1, 2}
    assert all(seconds > 0 for seconds in found.values())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not optimizer.state


# --- In `measure_costs` ------------------------------------------------------------------------


@pytest.fixture
def several():
    """Two threads, for a while."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_threads_that_hurt_are_told_and_left_as_they_are(virtual, several):
    virtual.pace = lambda seconds: seconds * (50.0 if torch.get_num_threads() == 2 else 1.0)
    with pytest.warns(UserWarning, match=r"with the 2 threads of torch, .* with 1: .*set_num_thr"):
        costs = measured(virtual, prices(3))
    assert torch.get_num_threads() == costs.threads == 2


def test_threads_that_help_are_not_told(virtual, several):
    virtual.pace = lambda seconds: seconds / torch.get_num_threads()
    measured(virtual, prices(3))
    assert torch.get_num_threads() == 2


def test_with_one_thread_there_is_nothing_to_compare():
    calls = []
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net.register_forward_hook(lambda *_: calls.append(torch.get_num_threads()))
    measure_costs(net, torch.randn(2, 4), rounds=1)
    assert set(calls) == {1}
