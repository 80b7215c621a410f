"""Train for less by progressively freezing layers: FreezeOut for any PyTorch model."""

__version__ = "0.1.0"
