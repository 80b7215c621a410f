"""What a comparison trains: the arms, and the settings of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from freezeout.errors import RunError
from freezeout.evidence import Kind
from freezeout.saving import Plan
from freezeout.schedule import Spacing
from freezeout.training.settings import Settings

__all__ = ["ArmSettings", "Variant", "equal_steps", "make_arms", "unfrozen", "variant_of"]

_UNSCALED = "unscaled"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of freezing.

    Attributes:
        t0: Freeze time of the first layer before spacing, in (0, 1).
        spacing: Growth of freeze times.
        scaled: Whether initial rates are scaled by 1/t_i.
        times: Explicit freeze times in place of `t0` and `spacing`; ``None``: none.
    """

    t0: float = 0.8
    spacing: Spacing = "cubic"
    scaled: bool = True
    times: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """Its name in tables and folders, which `parse` reads again (but for explicit times)."""
        start = "own times" if self.times is not None else f"{self.spacing}:{self.t0:.12g}"
        return start if self.scaled else f"{start}:{_UNSCALED}"

    @classmethod
    def parse(cls, text: str) -> Variant:
        """The variant that a text names: ``cubic:0.8``, ``linear:0.5:unscaled``.

        Raises:
            RunError: If the text names none.
        """
        spacing, _, rest = text.strip().partition(":")
        number, _, scaling = rest.partition(":")
        allowed = get_args(Spacing)
        if (
            spacing not in allowed
            or scaling not in ("", "scaled", _UNSCALED)
            or not re.fullmatch(r"0?\.[0-9]+|1(\.0*)?|0", number)
            or not 0.0 < float(number) < 1.0
        ):
            raise RunError(
                f"a variant must be SPACING:T0 or SPACING:T0:unscaled, with spacing one of "
                f"{', '.join(allowed)} and t0 between 0 and 1, got {text!r}. Write for example "
                "cubic:0.8 or linear:0.5:unscaled."
            )
        return cls(t0=float(number), spacing=cast("Spacing", spacing), scaled=scaling != _UNSCALED)

    def apply(self, settings: Settings) -> Settings:
        """Settings that freeze so."""
        return replace(
            settings, t0=self.t0, spacing=self.spacing, scaled=self.scaled, times=self.times
        )


def variant_of(settings: Settings) -> Variant | None:
    """How a run with these settings freezes; ``None`` if nothing would."""
    if settings.times is None and settings.t0 == 1.0:
        return None
    return Variant(
        t0=settings.t0, spacing=settings.spacing, scaled=settings.scaled, times=settings.times
    )


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
    """The same training with nothing frozen and one rate for all layers."""
    return replace(settings, t0=1.0, times=None, scaled=True, freeze=True, const_time=False)


def equal_steps(settings: Settings, variant: Variant, plan: Plan) -> int:
    r"""Steps without freezing that take as long as a whole run of a variant.

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
    """The arms of a comparison, in order.

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
            name = f"{variant.name} rates only"
            arms.append(ArmSettings(name=name, kind="control", of=variant.name, settings=control))
    return arms
