"""Capture the frozen prefix of an unmodified model: it runs only where its values are needed."""

from freezeout.prefix.capture import Capture
from freezeout.prefix.nodes import Call, Node, Plan
from freezeout.prefix.source import Inputs, Source

__all__ = ["Call", "Capture", "Inputs", "Node", "Plan", "Source"]
