"""Every message about a setting out of range."""

import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from freezeout import Schedule
from freezeout.schedule import annealing, freeze_times, initial_scales, rate_factors

NAN, INF = math.nan, math.inf
T0 = "It is the fraction of training after which the first layer may freeze."
CAP = "It limits the factor 1/t_i that scaling puts on a base rate; None sets no limit."
TIMES = "Give one fraction of training per layer, from the input to the output."
CURVE = "It is the curve along which rates fall; None leaves them to another scheduler."
ALLOWED = "anneal must be 'cosine', 'linear', a callable of t/t_i, or None"
SPACING = "It says how freeze times grow from the first layer to the last."
FACTOR = "It is called with the fraction t/t_i of a layer's learning time."


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"t0": 1.5}, ValueError, f"t0 must lie in (0, 1], got 1.5. {T0}"),
        ({"t0": 0}, ValueError, f"t0 must lie in (0, 1], got 0. {T0}"),
        ({"t0": -0.1}, ValueError, f"t0 must lie in (0, 1], got -0.1. {T0}"),
        ({"t0": NAN}, ValueError, f"t0 must lie in (0, 1], got nan. {T0}"),
        ({"t0": INF}, ValueError, f"t0 must lie in (0, 1], got inf. {T0}"),
        ({"t0": True}, TypeError, f"t0 must be a number in (0, 1], got True. {T0}"),
        ({"t0": "0.8"}, TypeError, f"t0 must be a number in (0, 1], got '0.8'. {T0}"),
        ({"t0": None}, TypeError, f"t0 must be a number in (0, 1], got None. {T0}"),
        (
            {"spacing": "quartic"},
            ValueError,
            f"spacing must be one of linear, squared, cubic, got 'quartic'. {SPACING}",
        ),
        (
            {"spacing": 3},
            ValueError,
            f"spacing must be one of linear, squared, cubic, got 3. {SPACING}",
        ),
        (
            {"spacing": ["cubic"]},
            ValueError,
            f"spacing must be one of linear, squared, cubic, got ['cubic']. {SPACING}",
        ),
        (
            {"scaled": 1},
            TypeError,
            "scaled must be True or False, got 1. "
            "It says whether initial rates are divided by freeze times.",
        ),
        ({"anneal": "cos"}, ValueError, f"{ALLOWED}, got 'cos'. {CURVE}"),
        ({"anneal": 1.0}, TypeError, f"{ALLOWED}, got 1.0. {CURVE}"),
        ({"anneal": True}, TypeError, f"{ALLOWED}, got True. {CURVE}"),
        (
            {"anneal": lambda u: -1.0},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.0) is -1.0. " + FACTOR,
        ),
        (
            {"anneal": lambda u: NAN if u > 0.4 else 1.0},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.5) is nan. " + FACTOR,
        ),
        (
            {"anneal": lambda u: 0.9 - u},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.999) is "
            f"{0.9 - 0.999!r}. " + FACTOR,
        ),
        (
            {"anneal": lambda u: "0.5"},
            ValueError,
            "anneal must return a finite factor of at least 0, but anneal(0.0) is '0.5'. " + FACTOR,
        ),
        (
            {"warmup_steps": -1},
            ValueError,
            "warmup_steps must be at least 0, got -1. Give 0 for no warm-up.",
        ),
        (
            {"warmup_steps": 2.5},
            TypeError,
            "warmup_steps must be a whole number of at least 0, got 2.5. Give 0 for no warm-up.",
        ),
        (
            {"warmup_steps": True},
            TypeError,
            "warmup_steps must be a whole number of at least 0, got True. Give 0 for no warm-up.",
        ),
        ({"scale_cap": 0.5}, ValueError, f"scale_cap must be at least 1, got 0.5. {CAP}"),
        ({"scale_cap": NAN}, ValueError, f"scale_cap must be at least 1, got nan. {CAP}"),
        (
            {"scale_cap": "2"},
            TypeError,
            f"scale_cap must be a number of at least 1 or None, got '2'. {CAP}",
        ),
        (
            {"scale_cap": True},
            TypeError,
            f"scale_cap must be a number of at least 1 or None, got True. {CAP}",
        ),
        ({"times": ()}, ValueError, f"times must hold at least one freeze time, got none. {TIMES}"),
        (
            {"times": 0.5},
            TypeError,
            f"times must be a sequence of numbers in (0, 1], got 0.5. {TIMES}",
        ),
        (
            {"times": "ab"},
            TypeError,
            f"times[0] must be a number in (0, 1], got 'a'. {TIMES}",
        ),
        (
            {"times": (0.5, True)},
            TypeError,
            f"times[1] must be a number in (0, 1], got True. {TIMES}",
        ),
        ({"times": (0, 1)}, ValueError, f"times[0] must lie in (0, 1], got 0. {TIMES}"),
        (
            {"times": (0.5, 1.5)},
            ValueError,
            f"times[1] must lie in (0, 1], got 1.5. {TIMES}",
        ),
        ({"times": (NAN,)}, ValueError, f"times[0] must lie in (0, 1], got nan. {TIMES}"),
        (
            {"times": (0.5, 0.4, 1)},
            ValueError,
            "times must never decrease, because only a prefix can freeze, got times[1] = 0.4 "
            f"after 0.5. {TIMES}",
        ),
    ],
)
def test_settings_out_of_range_say_what_was_given_what_is_allowed_and_what_to_do(
    settings, error, message
):
    with pytest.raises(error) as caught:
        Schedule(**settings)
    assert str(caught.value) == message
    assert type(caught.value) is error


LAYERS = "A model has one or more layers."
DONE = "It is the number of optimizer updates done."
UPDATES = "It is the number of optimizer updates."


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: freeze_times(0, 0.5),
            ValueError,
            f"num_layers must be at least 1, got 0. {LAYERS}",
        ),
        (
            lambda: freeze_times(2.0, 0.5),
            TypeError,
            f"num_layers must be a whole number of at least 1, got 2.0. {LAYERS}",
        ),
        (
            lambda: freeze_times(True, 0.5),
            TypeError,
            f"num_layers must be a whole number of at least 1, got True. {LAYERS}",
        ),
        (lambda: freeze_times(2, NAN), ValueError, f"t0 must lie in (0, 1], got nan. {T0}"),
        (
            lambda: freeze_times(2, 0.5, spacing="Cubic"),
            ValueError,
            f"spacing must be one of linear, squared, cubic, got 'Cubic'. {SPACING}",
        ),
        (
            lambda: initial_scales((0.5, 0.0)),
            ValueError,
            f"times[1] must lie in (0, 1], got 0.0. {TIMES}",
        ),
        (
            lambda: initial_scales((0.5, 1.0), cap=0),
            ValueError,
            f"scale_cap must be at least 1, got 0. {CAP}",
        ),
        (lambda: annealing("sine"), ValueError, f"{ALLOWED}, got 'sine'. {CURVE}"),
        (
            lambda: Schedule().freeze_steps(2, 0),
            ValueError,
            f"total_steps must be at least 1, got 0. {UPDATES}",
        ),
        (
            lambda: Schedule().freeze_steps(2, 10.0),
            TypeError,
            f"total_steps must be a whole number of at least 1, got 10.0. {UPDATES}",
        ),
        (
            lambda: Schedule().factors(0, 0, 2),
            ValueError,
            f"total_steps must be at least 1, got 0. {UPDATES}",
        ),
        (
            lambda: Schedule().factors(-1, 10, 2),
            ValueError,
            f"step must be at least 0, got -1. {DONE}",
        ),
        (
            lambda: Schedule().factors(0.5, 10, 2),
            TypeError,
            f"step must be a whole number of at least 0, got 0.5. {DONE}",
        ),
    ],
)
def test_functions_refuse_arguments_out_of_range(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_rates_need_one_scale_per_time():
    with pytest.raises(ValueError, match="zip"):
        rate_factors(0.1, (0.5, 1.0), (1.0,), annealing("cosine"))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_t0_is_taken_exactly_where_it_lies_in_range(t0):
    assume(not 0.0 < t0 <= 1.0)
    with pytest.raises(ValueError, match=r"t0 must lie in \(0, 1\]"):
        Schedule(t0=t0)
