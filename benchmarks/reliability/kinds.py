"""The kinds of trouble, and how much of the time each gets."""

from __future__ import annotations

from benchmarks.reliability.case import Kind
from benchmarks.reliability.damage import damage
from benchmarks.reliability.disks import disks
from benchmarks.reliability.kills import kills
from benchmarks.reliability.outputs import outputs
from benchmarks.reliability.signals import signals
from benchmarks.reliability.starts import starts
from benchmarks.reliability.sweeps import sweeps
from benchmarks.reliability.text import text
from benchmarks.reliability.words import words

__all__ = ["KINDS"]

KINDS: dict[str, Kind] = {
    "kills": Kind(kills, share=5.0),
    "disks": Kind(disks, share=2.0),
    "damage": Kind(damage, share=4.0),
    "outputs": Kind(outputs, share=1.0),
    "sweeps": Kind(sweeps, share=2.0),
    "signals": Kind(signals, share=1.0),
    "text": Kind(text, share=2.0),
    "words": Kind(words, share=4.0),
    "starts": Kind(starts, share=1.0),
}
"""By name, as ``--only`` takes it."""
