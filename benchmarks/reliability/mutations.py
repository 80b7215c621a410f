"""Texts and values that nobody would write by hand, made from valid ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["as_json", "hostile_value", "mutated_bytes", "mutated_tree", "place"]

_TEXTS = (
    *("", " ", "\x00", "a\nb", "\ud800", "\u202e", "ß" * 300, "x" * 10_000, "../../x", "~", "nan"),
    *("None", "true", "1", "0x10", "cubic:0.5", "digits", "json:loads", "=1+1", "'; ls", "%s{0}"),
)
_NUMBERS = (
    *(0, -1, 1, 2, 3, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400, -(10**400), 1e-320, 1e308),
    *(float("nan"), float("inf"), -float("inf"), -0.0, 0.5, 1.0000000001),
)
_TOKENS = (
    *(
        b"\x00",
        b"\xff",
        b"\xc3\x28",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b'"',
        b"'''",
        b'"""',
        b"\\u0000",
    ),
    *(b"\\ud800", b"[", b"]", b"{", b"}", b"[[", b"=", b",", b":", b"#", b"null", b"NaN", b"-"),
    *(b"Infinity", b"1e999", b"9" * 400, b"9" * 5000, b"-" * 50, b"0x" + b"f" * 400, b"true"),
    *(b"[" * 2000, b"{" * 2000, b'{"a":' * 2000, b"[[[" * 60 + b"]]]" * 60, b"1979-05-27", b"\t"),
    *(b"a." * 500 + b"b=1", b"[a]\n" * 3, b"x={y={z=", b"1_000", b"inf", b"+nan", b"0.1e-9999999"),
)


def hostile_value(chance: random.Random, depth: int = 3) -> Any:
    """Draw a plain value."""
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(_NUMBERS)
    if kind < 0.6:
        return chance.choice(_TEXTS)
    if kind < 0.75 or depth == 0:
        return chance.choice((None, True, False, [], {}))
    size = int(20 ** chance.random())
    if kind < 0.9:
        return [hostile_value(chance, depth - 1) for _ in range(size)]
    return {chance.choice(_TEXTS): hostile_value(chance, depth - 1) for _ in range(size)}


def mutated_tree(chance: random.Random, tree: Any) -> Any:
    """Return a copy of plain values with one to three of them replaced, deleted, or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        inside, key = place(chance, tree)
        if inside is None:
            return hostile_value(chance)
        _CHANGES[chance.randrange(len(_CHANGES))](chance, inside, key)
    return tree


def place(chance: random.Random, tree: Any) -> tuple[Any, Any]:
    """Draw a list or dictionary in a tree, and a place in it; ``None`` where there is none."""
    inside: Any = None
    key: Any = None
    value = tree
    while isinstance(value, (dict, list)) and value:
        inside = value
        key = chance.choice([*value]) if isinstance(value, dict) else chance.randrange(len(value))
        value = inside[key]
        if chance.random() < 0.25:
            break
    return inside, key


def _replace(chance: random.Random, inside: Any, key: Any) -> None:
    inside[key] = hostile_value(chance)


def _nudge(chance: random.Random, inside: Any, key: Any) -> None:
    value = inside[key]
    if isinstance(value, (int, float)):
        inside[key] = chance.choice((-value, value * 10**9, value + 1, str(value), not value))
    elif isinstance(value, str):
        inside[key] = value[: chance.randrange(len(value) + 1)] + chance.choice(_TEXTS)
    else:
        inside[key] = [value, value]


def _delete(chance: random.Random, inside: Any, key: Any) -> None:
    del inside[key]


def _add(chance: random.Random, inside: Any, key: Any) -> None:
    if isinstance(inside, dict):
        inside[chance.choice(_TEXTS)] = hostile_value(chance)
    else:
        inside.insert(key, copy.deepcopy(inside[key]))


_CHANGES: tuple[Callable[[random.Random, Any, Any], None], ...] = (_replace, _nudge, _delete, _add)


def mutated_bytes(chance: random.Random, content: bytes) -> bytes:
    """Return content with one to four places flipped, cut, doubled, or filled with odd tokens."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        begin = chance.randrange(len(made) + 1)
        end = min(len(made), begin + int(64 ** chance.random()))
        way = chance.randrange(5)
        if way == 0 and made:
            made[min(begin, len(made) - 1)] ^= 1 << chance.randrange(8)
        elif way == 1:
            del made[begin:end]
        elif way == 2:
            made[begin:begin] = made[begin:end]
        elif way == 3:
            made[begin:end] = chance.choice(_TOKENS)
        else:
            del made[begin:]
    return bytes(made)


def as_json(value: Any) -> bytes:
    """Return values as JSON, also those that JSON has not."""
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
