"""What a comparison trains: the arms, and the settings of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import cast, get_args

from freezeout.errors import RunError
from freezeout.lab.evidence import Kind
from freezeout.lab.training import Settings
from freezeout.planning import Plan
from freezeout.schedule import Schedule, Spacing

__all__ = [
    "ArmSettings",
    "Variant",
    "control_name",
    "equal_steps",
    "make_arms",
    "unfrozen",
    "variant_of",
]

_TEXT = re.compile(
    r"(\w+):(0?\.[0-9]+|1(?:\.0*)?|0)(:scaled|:unscaled)?(?::max_freezes=([1-9][0-9]{0,17}))?"
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of freezing: settings of a `Schedule` that vary within a comparison.

    Attributes:
        spacing: Growth of freeze times.
        scaled: Whether initial rates are scaled by 1/t_i.
        t0: Freeze time of the first layer before spacing, in (0, 1).
        max_freezes: Most moments at which layers freeze; ``None``: as many as there are layers.
        times: Explicit freeze times in place of `t0` and `spacing`; ``None``: none.
    """

    spacing: Spacing = Schedule.spacing
    scaled: bool = Schedule.scaled
    t0: float = Schedule.t0
    max_freezes: int | None = None
    times: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """Its name in tables and folders, which `parse` reads again (but for explicit times)."""
        start = "own times" if self.times is not None else f"{self.spacing}:{self.t0:.12g}"
        scaling = "" if self.scaled else ":unscaled"
        merged = "" if self.max_freezes is None else f":max_freezes={self.max_freezes}"
        return f"{start}{scaling}{merged}"

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Return the variant that a text names: ``cubic:0.8``, ``linear:0.5:unscaled``.

        ``:max_freezes=N`` may stand at the end.

        Raises:
            RunError: If the text does not name one.
        """
        found = _TEXT.fullmatch(text.strip())
        allowed = get_args(Spacing)
        if found is None or found[1] not in allowed or not 0.0 < float(found[2]) < 1.0:
            raise RunError(
                f"a variant must be SPACING:T0 or SPACING:T0:unscaled, with spacing one of "
                f"{', '.join(allowed)} and t0 between 0 and 1, and may end in :max_freezes=N, got "
                f"{text!r}. Write for example cubic:0.8 or linear:0.5:unscaled."
            )
        return cls(
            spacing=cast("Spacing", found[1]),
            scaled=found[3] != ":unscaled",
            t0=float(found[2]),
            max_freezes=int(found[4]) if found[4] else None,
        )

    def apply(self, settings: Settings) -> Settings:
        """Return settings that freeze this way."""
        return replace(settings, **asdict(self))


def variant_of(settings: Settings) -> Variant | None:
    """Return how a run with these settings freezes; ``None`` if nothing would."""
    if settings.times is None and settings.t0 == 1.0:
        return None
    return Variant(**{spec.name: getattr(settings, spec.name) for spec in fields(Variant)})


def control_name(variant: Variant) -> str:
    """Return the name of the arm that has a variant's rates and freezes nothing."""
    return f"{variant.name} rates only"


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """One of the ways of training that are compared.

    Attributes:
        name: What it is called, in tables.
        kind: What it is in the comparison.
        of: Name of the variant that it belongs to; ``None`` for baseline and variants.
        settings: Its settings, for any seed.
    """

    name: str
    kind: Kind
    of: str | None
    settings: Settings


def unfrozen(settings: Settings) -> Settings:
    """Return the same training with nothing frozen and one rate for all layers."""
    plain = Variant(spacing=settings.spacing, t0=1.0).apply(settings)
    return replace(plain, freeze=True, const_time=False)


def equal_steps(settings: Settings, variant: Variant, plan: Plan) -> int:
    r"""Return the steps without freezing that take as long as a whole run of a variant.

    $N' = N (1 - s)$ with the saving $s$ that is predicted from measured costs, at least 1.

    Args:
        settings: Those of the run.
        variant: How it freezes.
        plan: Measured costs of a step, and the length $N$ of the run in optimizer steps.
    """
    saving = replace(plan, schedule=variant.apply(settings).schedule, spacing="").saving
    return max(1, round(plan.total_steps * (1.0 - saving)))


def make_arms(
    settings: Settings,
    variants: Sequence[Variant],
    *,
    baseline: bool = True,
    equal: Sequence[int] | None = None,
    controls: bool = True,
) -> list[ArmSettings]:
    """Return the arms of a comparison, in order.

    Args:
        settings: What all arms share.
        variants: The ways of freezing.
        baseline: Whether to have one that trains to the full length without freezing.
        equal: Length of each variant's equal-time baseline in optimizer steps; ``None``: no such
            baselines.
        controls: Whether each variant has a control with its rates in which nothing freezes.

    Raises:
        RunError: If two variants have one name.
    """
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise RunError(f"variant {name!r} is given twice. Give each variant once.")
    plain = unfrozen(settings)
    arms = (
        [ArmSettings(name="baseline", kind="baseline", of=None, settings=plain)] if baseline else []
    )
    for i, variant in enumerate(variants):
        frozen = replace(variant.apply(settings), freeze=True)
        arms.append(ArmSettings(name=variant.name, kind="variant", of=None, settings=frozen))
        if equal is not None:
            short = replace(plain, steps=equal[i])
            name = f"{variant.name} equal time"
            arms.append(ArmSettings(name=name, kind="equal-time", of=variant.name, settings=short))
        if controls:
            control = replace(frozen, freeze=False, const_time=False)
            name = control_name(variant)
            arms.append(ArmSettings(name=name, kind="control", of=variant.name, settings=control))
    return arms
