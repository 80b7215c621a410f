"""A drawing as SVG: small, its marks told apart, in the reader's colour scheme."""

from __future__ import annotations

import io
import re
from html import escape
from xml.etree import ElementTree

from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from freezeout.lab.report.figures.drawing import WIDE, Drawing, drawing_style
from freezeout.lab.report.grouping import clean
from freezeout.lab.report.palette import COLORS

__all__ = ["marker_path", "page_svg", "svg_file"]

_VARIABLES = {color.light: f"var(--{color.name})" for color in COLORS}
_DARK = {color.light: color.dark for color in COLORS}
_NUMBER = re.compile(r"-?\d+\.\d+")
_COLOR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"^#(.+)$|^url\(#(.+)\)$")
_DROPPED_STYLES = ("font-family", "stroke-dashoffset", "stroke-linejoin")
_ROUNDED = {"d", "x", "y", "width", "height", "transform", "viewBox"}
_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif'


def page_svg(drawing: Drawing, prefix: str, label: str) -> str:
    """Write a drawing as an ``<svg>`` element of a page.

    Colours of the palette become custom properties, fonts those of the page. Marks become groups of
    class ``mark`` with their styles in ``data-arms`` and their text as ``<title>``, which browsers
    show without any script. The element's class is ``narrow`` for a phone, else ``wide``, with
    ``square`` where it is less wide than others.

    Args:
        drawing: What to write.
        prefix: Put before every id; unique within the page.
        label: What the figure shows, for those who do not see it.

    Returns:
        HTML without references to anything outside; the same drawing gives the same text.
    """
    written = _Writer(drawing, prefix)
    small = drawing.figure.get_size_inches()[0] < WIDE
    look = "narrow" if drawing.narrow else "wide square" if small else "wide"
    return (
        f'<svg class="{look}" viewBox="{written.view}" style="max-width: {written.width}pt" '
        f'role="img" aria-label="{escape(clean(label))}">'
        f"<style>{written.rules(_VARIABLES)}</style>{written.body}</svg>"
    )


def svg_file(drawing: Drawing, label: str) -> str:
    """Write a drawing as an SVG file that follows the colour scheme of where it is shown.

    Args:
        drawing: What to write.
        label: What the figure shows, for those who do not see it.
    """
    written = _Writer(drawing, "s")
    paper = f"width:100%;height:100%;fill:{COLORS[0].light}"
    written.looks[paper] = "paper"
    height = written.view.split()[3]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'width="{written.width}pt" height="{height}pt" viewBox="{written.view}" role="img" '
        f'aria-label="{escape(clean(label))}">\n<style>svg{{font-family:{_FONT}}}'
        f"path,use{{stroke-linejoin:round}}{written.rules({})}\n"
        f"@media (prefers-color-scheme:dark){{{written.rules(_DARK)}}}</style>\n"
        f'<rect class="paper"/>{written.body}</svg>\n'
    )


class _Writer:
    """Rewrite the SVG that matplotlib makes of a drawing.

    Args:
        drawing: The drawing.
        prefix: Put before every id and class.

    Attributes:
        looks: One class per style, as most styles are many artists'.
        view: The view box.
        width: Its width.
        body: What the root holds.
    """

    def __init__(self, drawing: Drawing, prefix: str) -> None:
        target = io.StringIO()
        with drawing_style():
            drawing.place_labels()
            drawing.figure.savefig(
                target, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none"
            )
        root = ElementTree.fromstring(target.getvalue())
        used = {name for element in root.iter() for name in _references(element)}
        self._drawing, self._prefix = drawing, prefix
        self._names = {name: f"{prefix}{i}" for i, name in enumerate(sorted(used))}
        self.looks: dict[str, str] = {}
        self.view = _rounded(root.get("viewBox", "0 0 0 0"))
        self.width = self.view.split()[2]
        self.body = "".join(self._element(child) for child in root)

    def rules(self, colors: dict[str, str]) -> str:
        """Return the style sheet, with some colours replaced."""
        return "".join(
            f".{name}{{{_COLOR.sub(lambda found: colors.get(found[0], found[0]), style)}}}"
            for style, name in self.looks.items()
        )

    def _element(self, element: ElementTree.Element) -> str:
        """Write an element with all that it holds; an empty text if it shows nothing."""
        tag = element.tag.rpartition("}")[2]
        if tag in ("metadata", "style"):
            return ""
        attributes: list[str] = []
        title = ""
        for raw, value in element.attrib.items():
            name = raw.rpartition("}")[2]
            if name == "id":
                mark = self._drawing.marks.get(value)
                if mark is not None:
                    attributes.append(f'class="{"mark" if mark.text else "part"}"')
                    attributes.append(f'data-arms="{escape(" ".join(mark.arms))}"')
                    title = mark.text
                elif value in self._names:
                    attributes.append(f'id="{self._names[value]}"')
            elif name == "style":
                if style := _style(value):
                    look = self.looks.setdefault(style, f"{self._prefix}s{len(self.looks)}")
                    attributes.append(f'class="{look}"')
            else:
                text = self._attribute(name, value)
                if text and not text.startswith("rotate(-0 "):
                    attributes.append(f'{name}="{escape(text)}"')
        inside = "".join(self._element(child) for child in element)
        if title:
            lines = "\n".join(clean(line) for line in title.split("\n"))
            inside = f"<title>{escape(lines)}</title>{inside}"
        if tag == "text" and element.text:
            inside += escape(clean(element.text.strip()))
        if tag in ("g", "defs") and (not inside or (tag == "g" and not attributes)):
            return inside  # a group that says nothing
        if not (inside or attributes or tag == "path"):
            return ""
        opening = " ".join([tag, *attributes])
        return f"<{opening}>{inside}</{tag}>" if inside else f"<{opening}/>"

    def _attribute(self, name: str, value: str) -> str:
        """Return the value of an attribute as short as it can be, its references renamed."""
        if match := _REFERENCE.match(value):
            renamed = self._names[match[1] or match[2]]
            return f"#{renamed}" if match[1] else f"url(#{renamed})"
        if name in _ROUNDED:
            value = _rounded(value)
        if name == "d":
            value = re.sub(r" ?([A-Za-z]) ?", r"\1", value)
            if not set("CQz") & set(value):  # straight lines follow a start without saying so
                value = value.replace("L", " ")
        return value


def marker_path(marker: str, size: float = 8.0) -> str:
    """Return the outline of a marker around (0, 0), as the ``d`` of a ``<path>``.

    Args:
        marker: Marker, by matplotlib's letter.
        size: Its width.
    """
    style = MarkerStyle(marker)
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
    parts = []
    for points, code in style.get_path().transformed(style.get_transform()).iter_segments():
        numbers = (f"{v * (size, -size)[i % 2]:.3f}" for i, v in enumerate(points))
        parts.append("z" if code == Path.CLOSEPOLY else letters[code] + " ".join(numbers))
    return _rounded("".join(parts))


def _references(element: ElementTree.Element) -> list[str]:
    """Return the ids that an element refers to."""
    found = (_REFERENCE.match(value) for value in element.attrib.values())
    return [match[1] or match[2] for match in found if match]


def _rounded(text: str) -> str:
    """Round coordinates to a tenth of a point, which no eye can tell."""
    short = _NUMBER.sub(lambda match: f"{round(float(match[0]), 1) + 0.0:g}", text)
    return " ".join(short.split())


def _style(text: str) -> str:
    """Return a style without what the page or the file says once."""
    parts = (part.strip().partition(": ") for part in text.split(";"))
    return ";".join(f"{name}:{v}" for name, _, v in parts if name and name not in _DROPPED_STYLES)
