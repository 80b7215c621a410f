"""The kinds of trouble, and how much of the time each gets."""

from __future__ import annotations

from benchmarks.reliability.case import Kind
from benchmarks.reliability.damage import damage
from benchmarks.reliability.disks import disks
from benchmarks.reliability.kills import kills
from benchmarks.reliability.starts import starts

__all__ = ["KINDS"]

KINDS: dict[str, Kind] = {
    "kills": Kind(kills, share=6.0),
    "disks": Kind(disks, share=2.0),
    "damage": Kind(damage, share=4.0),
    "starts": Kind(starts, share=1.0),
}
"""By name; `share` adds up to 20."""
