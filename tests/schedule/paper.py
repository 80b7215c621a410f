"""The paper's formulas, written out again."""

import numpy as np

POWER = {"linear": 1, "squared": 2, "cubic": 3}


def paper_times(layers: int, t0: float, spacing: str) -> np.ndarray:
    """Section 2 in float64: evenly spaced from t0 to 1, then to a power."""
    return np.linspace(t0, 1.0, layers, dtype=np.float64) ** POWER[spacing]


def paper_rate(t: float, t_i: float, scaled: bool) -> float:
    """Equation 1, with its missing factor one half, relative to the base rate."""
    if t >= t_i:
        return 0.0
    start = np.float64(1.0) / t_i if scaled else np.float64(1.0)
    return float(0.5 * start * (1.0 + np.cos(np.pi * t / t_i)))
