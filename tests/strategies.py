"""Hypothesis strategies, in one place. Importing this also fixes the seed and drops deadlines."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st

from freezeout.schedule import Schedule

settings.register_profile("freezeout", derandomize=True, deadline=None)
settings.load_profile("freezeout")

num_layers = st.integers(1, 40)
total_steps = st.integers(1, 3000)
spacings = st.sampled_from(["linear", "squared", "cubic"])
t0s = st.floats(0.0, 1.0, exclude_min=True, allow_subnormal=False)
usual_t0s = st.floats(0.05, 1.0)
"""First freeze times at which a scaled rate stays a sane number (8000 times the base at most)."""


def half_circle(u: float) -> float:
    """A curve of one's own: falls ever faster, and never reaches 0 before the end."""
    return float((1.0 - u * u) ** 0.5)


anneals = st.sampled_from(["cosine", "linear", half_circle])


@st.composite
def explicit_times(draw: Callable[..., float], layers: int | None = None) -> tuple[float, ...]:
    """Freeze times as a user may give them: never decreasing, in (0, 1]."""
    size = draw(st.integers(1, 12)) if layers is None else layers
    times = st.floats(1e-3, 1.0)
    return tuple(sorted(draw(st.lists(times, min_size=size, max_size=size))))


@st.composite
def schedules(draw: Callable[..., object], layers: int) -> Schedule:
    """Any schedule that sets rates, for a number of layers."""
    return Schedule(
        t0=draw(usual_t0s),
        spacing=draw(spacings),
        scaled=draw(st.booleans()),
        anneal=draw(anneals),
        scale_cap=draw(st.none() | st.floats(1.0, 10.0)),
        times=draw(st.none() | explicit_times(layers)),
    )
