"""A drawing as SVG that lies inside a page: small, in the page's colours, its marks told apart."""

from __future__ import annotations

import io
import re
from html import escape
from xml.etree import ElementTree

from freezeout.report.arms import clean
from freezeout.report.figures._drawing import Drawing, drawing_style
from freezeout.report.palette import COLORS

__all__ = ["inline_svg"]

_VARIABLES = {color.light: f"var(--{color.name})" for color in COLORS}
_NUMBER = re.compile(r"-?\d+\.\d+")
_COLOR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"^#(.+)$|^url\(#(.+)\)$")
_DROPPED = {"metadata", "style"}
_ROUNDED = {"d", "x", "y", "width", "height", "transform", "viewBox"}


def inline_svg(drawing: Drawing, prefix: str, label: str, css_class: str) -> str:
    """Write a drawing as an ``<svg>`` element of a page.

    Colours of the palette become custom properties, fonts those of the page. Marks become groups of
    class ``mark`` with their arms in ``data-arms`` and their text as ``<title>``, which browsers
    show without any script.

    Args:
        drawing: What to write.
        prefix: Put before every id; unique within the page.
        label: What the figure shows, for those who do not see it.
        css_class: Class of the element.

    Returns:
        HTML without references to anything outside; the same drawing gives the same text.
    """
    target = io.StringIO()
    with drawing_style():
        drawing.figure.savefig(
            target, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none"
        )
    root = ElementTree.fromstring(target.getvalue())
    used = {name for element in root.iter() for name in _references(element)}
    out: list[str] = []
    names = {name: f"{prefix}{i}" for i, name in enumerate(sorted(used))}
    view = _rounded(root.get("viewBox", ""))
    width = view.split()[2] if view else "0"
    out.append(
        f'<svg class="{escape(css_class)}" viewBox="{view}" style="max-width: {width}pt" '
        f'role="img" aria-label="{escape(label)}">'
    )
    looks: dict[str, str] = {}
    body: list[str] = []
    for child in root:
        _write(child, drawing, names, looks, prefix, body)
    rules = "".join(f".{name}{{{style}}}" for style, name in looks.items())
    return "".join([*out, f"<style>{rules}</style>", *body, "</svg>"])


def _write(
    element: ElementTree.Element,
    drawing: Drawing,
    names: dict[str, str],
    looks: dict[str, str],
    prefix: str,
    out: list[str],
) -> None:
    """Write an element; `looks` collects one class per style, as most styles are many artists'."""
    tag = element.tag.rpartition("}")[2]
    if tag in _DROPPED:
        return
    attributes: list[str] = []
    title = ""
    for raw, value in element.attrib.items():
        name = raw.rpartition("}")[2]
        if name == "id":
            mark = drawing.marks.get(value)
            if mark is not None:
                attributes += [f'class="{"mark" if mark.text else "part"}"']
                attributes += [f'data-arms="{escape(" ".join(mark.arms))}"']
                title = mark.text
            elif value in names:
                attributes.append(f'id="{names[value]}"')
            continue
        if name == "style":
            style = _style(value)
            if style:
                look = looks.setdefault(style, f"{prefix}s{len(looks)}")
                attributes.append(f'class="{look}"')
            continue
        text = _renamed(value, names)
        if name in _ROUNDED:
            text = _rounded(text)
        if name == "d":
            text = _path(text)
        if text and not text.startswith("rotate(-0 "):
            attributes.append(f'{name}="{escape(text)}"')
    children: list[str] = []
    if title:
        lines = "\n".join(clean(line) for line in title.split("\n"))
        children.append(f"<title>{escape(lines)}</title>")
    for child in element:
        _write(child, drawing, names, looks, prefix, children)
    text = escape(element.text.strip()) if tag == "text" and element.text else ""
    if not (children or text or attributes or tag == "path"):
        return
    if tag in ("g", "defs") and not children:
        return
    if tag == "g" and not attributes:
        out += children  # a group that says nothing
        return
    opening = " ".join([tag, *attributes])
    if children or text:
        out.append(f"<{opening}>{''.join(children)}{text}</{tag}>")
    else:
        out.append(f"<{opening}/>")


def _references(element: ElementTree.Element) -> list[str]:
    found = (_REFERENCE.match(value) for value in element.attrib.values())
    return [match[1] or match[2] for match in found if match]


def _renamed(value: str, names: dict[str, str]) -> str:
    match = _REFERENCE.match(value)
    if match is None:
        return value
    name = names[match[1] or match[2]]
    return f"#{name}" if match[1] else f"url(#{name})"


def _rounded(text: str) -> str:
    """Coordinates to a tenth of a point, which no eye can tell."""
    short = _NUMBER.sub(lambda match: f"{round(float(match[0]), 1) + 0.0:g}", text)
    return " ".join(short.split())


def _path(text: str) -> str:
    """A path with as few letters as it needs: straight lines follow a start without saying so."""
    if set("CQz") & set(text):
        return re.sub(r" ?([A-Za-z]) ?", r"\1", text)
    return re.sub(r" ?([A-Za-z]) ?", r"\1", text).replace("L", " ")


def _style(text: str) -> str:
    """Styles with the page's colours and font."""
    kept = []
    for part in text.split(";"):
        name, _, value = part.strip().partition(": ")
        if not name or name in ("font-family", "stroke-dashoffset", "stroke-linejoin"):
            continue
        value = _COLOR.sub(lambda match: _VARIABLES.get(match[0], match[0]), value)
        kept.append(f"{name}:{value}")
    return ";".join(kept)
