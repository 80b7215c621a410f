"""Hypothesis strategies, in one place."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from freezeout import Costs, LayerCost
from freezeout.schedule import Schedule

num_layers = st.integers(1, 40)
total_steps = st.integers(1, 3000)
spacings = st.sampled_from(["linear", "squared", "cubic"])
t0s = st.floats(0.0, 1.0, exclude_min=True, allow_subnormal=False)
usual_t0s = st.floats(0.05, 1.0)
"""First freeze times at which a scaled rate stays a sane number (8000 times the base at most)."""


def half_circle(u: float) -> float:
    """A custom curve: falls ever faster, and never reaches 0 before the end."""
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


# --- Measured costs ----------------------------------------------------------------------------


def made_costs(
    savings: Sequence[float],
    *,
    frozen: Sequence[float] | None = None,
    last: float = 0.25,
    overhead: float = 0.125,
    noise: Sequence[float] = (0.0,) * 6,
    names: Sequence[str] | None = None,
) -> Costs:
    """Costs of a step, as if measured.

    Args:
        savings: Seconds that freezing saves, for each layer but the last.
        frozen: Seconds that these layers still take once frozen; 0.5 each by default.
        last: Seconds of the last layer.
        overhead: Seconds that belong to no layer.
        noise: One round of measurement for each: by how much freezing saved more in it than it
            does, as a fraction.
        names: Names of all layers.
    """
    frozen = [0.5] * len(savings) if frozen is None else frozen
    names = [f"layer{i}" for i in range(len(savings) + 1)] if names is None else names
    layers = [
        LayerCost(
            name=name,
            forward=kept + saving / 4,
            frozen_forward=kept,
            backward=saving / 2,
            optimizer=saving / 4,
            forward_flops=100 * (i + 1),
            backward_flops=150 * (i + 1),
            saved_bytes=1000 * (len(savings) - i),
            parameter_bytes=40 * (i + 1),
            gradient_bytes=40 * (i + 1),
            state_bytes=80 * (i + 1),
        )
        for i, (name, saving, kept) in enumerate(
            zip(names, [*savings, last], [*frozen, 0.0], strict=True)
        )
    ]
    one = Costs(
        layers=tuple(layers),
        overhead=overhead,
        depths=tuple(range(len(layers))),
        rounds=((1.0,) * len(layers),),
        batch_size=8,
        device="a device of the tests",
        threads=1,
        torch_version="2.0.0",
    )
    steps = [one.step_seconds(depth) for depth in one.depths]
    rounds = tuple(tuple(t - more * (steps[0] - t) for t in steps) for more in noise)
    return replace(one, rounds=rounds)


def with_made_times(measured: Costs, rounds: int = 6) -> Costs:
    """Measured costs with made-up times: a busy machine could give any, of layers and of rounds."""
    made = made_costs(
        [0.004] * (len(measured) - 1),
        frozen=[0.002] * (len(measured) - 1),
        last=0.001,
        overhead=0.001,
    )
    times = ("forward", "frozen_forward", "backward", "optimizer")
    layers = tuple(
        replace(layer, **{name: getattr(other, name) for name in times})
        for layer, other in zip(measured.layers, made.layers, strict=True)
    )
    return replace(
        measured,
        layers=layers,
        overhead=made.overhead,
        depths=made.depths,
        rounds=made.rounds[:1] * rounds,
    )


@st.composite
def costs(
    draw: Callable[..., Any], *, min_layers: int = 2, max_layers: int = 8, noisy: bool = False
) -> Costs:
    """Costs in which freezing a layer saves 0 or more; where noisy, slightly less than 0, too."""
    size = draw(st.integers(min_layers, max_layers)) - 1
    few = st.floats(0.0, 1.0).map(lambda x: round(x, 6))
    savings = draw(st.lists(few, min_size=size, max_size=size))
    if noisy:
        lost = draw(st.lists(st.floats(0.0, 0.05), min_size=size, max_size=size))
        savings = [a - b for a, b in zip(savings, lost, strict=True)]
    frozen = draw(st.lists(st.floats(0.1, 0.5), min_size=size, max_size=size))
    rounds = draw(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=12))
    return made_costs(savings, frozen=frozen, last=draw(st.floats(0.05, 1.0)), noise=rounds)
