"""Arms of made runs, and the verdict on them."""

import dataclasses

from hypothesis import strategies as st

from freezeout.lab.evidence import Arm, RunRecord, compare_arms
from freezeout.lab.evidence import record as record_parts  # pytest takes "Tested" for tests

FULL, EQUAL, VARIANT = (
    [5.0, 5.2, 4.9, 5.1, 5.3],
    [6.0, 6.1, 5.9, 6.2, 6.3],
    [5.1, 5.2, 5.0, 5.3, 5.3],
)
FULL_SECONDS, VARIANT_SECONDS = [100.0, 101.0, 99.0, 100.5, 99.5], [80.0, 81.0, 79.0, 80.0, 80.5]


def by_seed(values):
    return dict(enumerate(values))


def arms(
    variant=VARIANT,
    equal=EQUAL,
    full=FULL,
    *,
    seconds=VARIANT_SECONDS,
    equal_seconds=None,
    full_seconds=FULL_SECONDS,
    control=None,
    name="cubic",
):
    """A variant's arms; ``None`` leaves an arm, or its times, out."""

    def arm(kind, errors, times, **more):
        timed = {} if times is None else by_seed(times[: len(errors)])
        return Arm(kind=kind, errors=by_seed(errors), seconds=timed, **more)

    made = [arm("variant", variant, seconds, name=name)]
    if full is not None:
        made.append(arm("baseline", full, full_seconds, name="full"))
    if equal is not None:
        times = seconds if equal_seconds is None else equal_seconds
        made.append(arm("equal-time", equal, times, name=f"short {name}", of=name))
    if control is not None:
        made.append(arm("control", control, full_seconds, name=f"rates {name}", of=name))
    return made


def verdict(*args, level=0.95, margin=0.25, **options):
    comparison = compare_arms(arms(*args, **options), level=level, margin=margin)
    return comparison.verdicts[0]


def record(kind="variant", arm="cubic", seed=0, error=5.0, **changes):
    of = "cubic" if kind in ("equal-time", "control") else None
    made = RunRecord(
        name=f"{arm}-{seed}",
        cell="digits",
        model="net",
        data="digits",
        arm=arm,
        kind=kind,
        of=of,
        spacing=None,
        scaled=True,
        t0=1.0,
        seed=seed,
        epochs=3,
        total_steps=30,
        steps=30,
        finished=True,
        base_rate=0.1,
        layer_names=("a", "b"),
        freeze_steps=(None, None),
        rate_steps=(),
        rates=(),
        tested=(record_parts.Tested(15, 5.0, 50.0), record_parts.Tested(30, 10.0, error)),
        step_times=(),
        memory=(),
        train_seconds=10.0,
        total_seconds=None,
        peak_memory=1000,
        predicted=None,
        predicted_interval=None,
        measured=None,
        device="CPU",
        precision="fp32",
    )
    return dataclasses.replace(made, **changes)


drawn_errors = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=6)
