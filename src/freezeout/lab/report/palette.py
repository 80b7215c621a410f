"""Colours and signs of a report: one set per arm, readable on white and on near-black.

Every colour is a pair. Figures are drawn in the light one; on the page it is a custom property
of the same name that the reader's colour scheme sets. Colour is never the only cue: arms differ
by marker and dash too. A variant, its equal-time baseline and its control share their colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freezeout.lab.evidence import RunRecord
from freezeout.lab.report.grouping import ArmKey, arm_of, by_arm, clean

__all__ = ["COLORS", "HUES", "Color", "Palette", "Style", "family_of", "layer_colors"]


@dataclass(frozen=True)
class Color:
    """A colour on white (`light`) and on near-black (`dark`), as ``#rrggbb``."""

    name: str
    light: str
    dark: str


PAPER = Color("paper", "#ffffff", "#14181c")
INK = Color("ink", "#1f2328", "#e6e8eb")
SOFT = Color("soft", "#57606a", "#a2abb4")
GRID = Color("grid", "#dfe3e7", "#30363d")

# Colours after Okabe and Ito, each darkened or lightened to at least 3:1 against its background.
HUES = (
    Color("hue-0", "#0067b1", "#5aa9e6"),
    Color("hue-1", "#c24a00", "#ff8a4d"),
    Color("hue-2", "#00795a", "#2fbf94"),
    Color("hue-3", "#b0487f", "#e293bd"),
    Color("hue-4", "#8f6a00", "#e0b020"),
    Color("hue-5", "#1b87b8", "#7cc7ee"),
    Color("hue-6", "#7a3b2e", "#c98d7c"),
    Color("hue-7", "#5d6b00", "#b3c24a"),
)

# Viridis without the end that the background would swallow, from the input on.
_LIGHT_LAYERS = (
    "440154 471063 481f70 472d7b 443a83 3f4788 3a538b 355f8d "
    "306a8e 2b748e 277f8e 23898e 20938c 1e9d89 22a785 2cb17e"
)
_DARK_LAYERS = (
    "2e6f8e 29798e 25838e 228d8d 1f978b 1fa187 25ac82 32b67a "
    "44bf70 5ac864 73d056 8ed645 aadc32 c8e020 e5e419 fde725"
)
_LAYERS = tuple(
    Color(f"layer-{i}", f"#{light}", f"#{dark}")
    for i, (light, dark) in enumerate(zip(_LIGHT_LAYERS.split(), _DARK_LAYERS.split(), strict=True))
)

COLORS = (PAPER, INK, SOFT, GRID, *HUES, *_LAYERS)

_MARKERS = "o^vpP<>*h"
_FIXED = {"baseline": "s", "equal-time": "D", "control": "X"}
Dash = tuple[float, ...]
_DASHES: dict[str, Dash] = {
    "baseline": (),
    "variant": (),
    "equal-time": (4.0, 2.0),
    "control": (1.0, 1.5),
}


@dataclass(frozen=True)
class Style:
    """How a curve or a point looks everywhere: one per arm, or per other thing in a legend.

    Attributes:
        id: Unique within a report, fit for HTML attributes.
        label: Text shown.
        color: Colour of lines and markers.
        marker: Marker, by matplotlib's letter.
        dash: Lengths of strokes and gaps; empty for a solid line.
        filled: Whether markers are filled.
    """

    id: str
    label: str
    color: Color
    marker: str
    dash: Dash = ()
    filled: bool = True


class Palette:
    """The style of every arm of a report.

    Up to eight variants have a colour each. With more, the colour says the spacing and whether
    rates are scaled, and the marker tells arms of one colour apart.

    Args:
        records: All runs of the report.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        groups = by_arm(records)
        variants = list(dict.fromkeys(key.arm for key in groups if key.kind == "variant"))
        self.colored_by_family = len(variants) > len(HUES)
        self._families = list(
            dict.fromkeys(
                family_of(runs[0]) for key, runs in groups.items() if key.kind == "variant"
            )
        )
        looks: dict[str, tuple[Color, str]] = {}
        counts = dict.fromkeys(self._families, 0)
        for key, runs in groups.items():
            if key.kind != "variant" or key.arm in looks:
                continue
            family = family_of(runs[0])
            place = counts[family] if self.colored_by_family else len(looks)
            color = self.family_color(family) if self.colored_by_family else HUES[len(looks)]
            looks[key.arm] = (color, _MARKERS[place % len(_MARKERS)])
            counts[family] += 1
        shown = [key.arm for key in groups]
        self._styles: dict[ArmKey, Style] = {}
        for number, key in enumerate(groups):
            owner = key.arm if key.kind == "variant" else key.of or ""
            color, marker = looks.get(owner, (SOFT, "h"))
            label = clean(key.arm)
            if shown.count(key.arm) > 1 and key.kind != "variant":
                label += f" ({key.kind} of {clean(key.of)})" if key.of else f" ({key.kind})"
            self._styles[key] = Style(
                id=f"a{number}",
                label=label,
                color=INK if key.kind == "baseline" else color,
                marker=_FIXED.get(key.kind, marker),
                dash=_DASHES[key.kind],
                filled=key.kind in ("baseline", "variant"),
            )

    def __getitem__(self, key: ArmKey | RunRecord) -> Style:
        """Return the style of an arm, or of the arm of a run."""
        return self._styles[arm_of(key) if isinstance(key, RunRecord) else key]

    def family_color(self, family: Family) -> Color:
        """Return the colour of the line through arms that differ by `t0` only."""
        if not self.colored_by_family:
            return SOFT
        return HUES[self._families.index(family) % len(HUES)]

    def family_dash(self, family: Family) -> Dash:
        """Return the dash of that line: solid if rates are scaled."""
        return () if family[1] else (4.0, 2.0)


Family = tuple["str | None", bool, "int | None"]
"""Spacing, whether rates are scaled, and the most freezes."""


def family_of(record: RunRecord) -> Family:
    """Return what arms on one line over `t0` share."""
    return (record.spacing, record.scaled, record.max_freezes)


def layer_colors(layers: int) -> list[Color]:
    """Return one colour per layer, from the input on; with over 16 layers, neighbours share.

    Args:
        layers: Number of layers, at least 1.

    Returns:
        As many colours.
    """
    last = len(_LAYERS) - 1
    return [_LAYERS[round(last * i / max(1, layers - 1))] for i in range(layers)]
