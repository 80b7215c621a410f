"""Runs that end alike but for rounding."""

import pytest
import torch

from freezeout.lab.training.checkpoint import load_checkpoint

# Sums in another order move float32 by about 1e-7 of each sum; fifteen steps carry that on.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def assert_close_end(one, other, **tolerance):
    """Both runs ended with the same weights, moments and losses but for rounding."""
    a, b = load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint)
    tolerance = tolerance or CLOSE
    for name, value in a["model"].items():
        torch.testing.assert_close(value, b["model"][name], **tolerance, msg=name)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys()
    for key, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            found = b["optimizer"]["state"][key][name]
            torch.testing.assert_close(value, found, **tolerance, msg=f"{key} {name}")
    assert a["scheduler"] == b["scheduler"]
    assert a["step"] == b["step"]
    for x, y in zip(a["history"], b["history"], strict=True):
        for name in ("train_loss", "test_loss"):
            assert x[name] == pytest.approx(y[name], rel=tolerance["rtol"])
        for name in ("epoch", "step", "frozen", "train_error", "test_error"):
            assert x[name] == y[name], name


def events(folder):
    """What happened when, but for resumes."""
    told = [(r["event"], r["step"], r.get("index")) for r in folder.read_log()]
    return [event for event in told if event[0] != "resume"]
