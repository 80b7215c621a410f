"""Descriptions of experiments that were damaged, or made by hand."""

import json

import pytest

from freezeout.errors import RunError
from freezeout.lab.experiments import Experiment, Grid
from freezeout.storage import with_digest
from tests.lab.experiments.small_experiments import VALUES, made


def described(folder, **changes):
    """A description without a digest, as by hand."""
    grid = Grid.from_dict({**VALUES, "arms": {"equal_time": True}}, "test").to_dict()
    for name, value in changes.items():
        grid.pop(name) if value is LEFT_OUT else grid.update({name: value})
    (folder / "experiment.json").write_text(json.dumps(grid))
    return folder


LEFT_OUT = object()


def cell(**changes):
    return {"name": "a", "settings": {}, **changes}


def test_one_that_was_kept_is_loaded_with_a_digest_and_without(tmp_path):
    experiment = made(tmp_path)
    experiment.save()
    assert Experiment.load(tmp_path) == experiment
    older = json.loads(experiment.description.read_text())
    del older["digest"]
    experiment.description.write_text(json.dumps(older))
    assert Experiment.load(tmp_path) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": "abc"}, "'cells' must be a list, got 'abc'"),
        ({"cells": ["abc"]}, "'cells' must be an object, got 'abc'"),
        ({"cells": [cell(name=5)]}, "'name' of a cell must be a text"),
        ({"cells": [cell(name="a\nb")]}, "'name' of a cell must be a text"),
        ({"cells": [cell(settings=[1])]}, "'settings' of a cell must be an object"),
        ({"cells": [cell(settings={"epochs": "x"})]}, "epochs must be a whole number"),
        ({"cells": [cell(settings={"shape": 1})]}, "'shape' in the settings is not a setting"),
        ({"cells": [cell(), cell()]}, "cell 'a' is given twice"),
        ({"cells": [cell(other=1)]}, "'other' is no entry of a cell"),
        ({"cells": []}, "nothing to run"),
        ({"variants": [["cubic"]]}, "'variants' must be an object"),
        ({"variants": [{"t0": 7}]}, r"t0 must lie in \(0, 1\], got 7"),
        ({"variants": [{"t0": "half"}]}, "t0 must be a number"),
        ({"variants": [{"t0": 1.0}]}, "a variant freezes nothing"),
        ({"variants": [{"lr": 0.1}]}, "'lr' is no entry of a variant"),
        ({"seeds": [-1]}, "'seeds' must be a whole number from 0"),
        ({"seeds": [0.5]}, "'seeds' must be a whole number from 0"),
        ({"seeds": 3}, "'seeds' must be a list"),
        ({"seeds": list(range(100_000))}, "at most 100,000 runs, got 300,000"),
        ({"baseline": "yes"}, "'baseline' must be true or false"),
        ({"turns": LEFT_OUT}, "'turns' is missing"),
        ({"extra": 1}, "'extra' is no entry of it"),
    ],
)
def test_nonsense_made_by_hand_is_said_in_one_line(tmp_path, changes, message):
    with pytest.raises(RunError, match=message) as caught:
        Experiment.load(described(tmp_path, **changes))
    assert str(caught.value).startswith("the description of an experiment ")
    assert "is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_that_has_changed_since_it_was_written_is_refused(tmp_path):
    experiment = made(tmp_path)
    values = with_digest(experiment.grid.to_dict())
    experiment.description.write_text(json.dumps({**values, "seeds": [1, 2]}))
    with pytest.raises(RunError, match="its digest is another"):
        Experiment.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_description_is_refused(tmp_path, content):
    (tmp_path / "experiment.json").write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        Experiment.load(tmp_path)


@pytest.mark.parametrize(
    ("grid", "what"),
    [
        ({"lr": [n / 1000 for n in range(1, 1001)], "epochs": list(range(1, 1001))}, "cells"),
        ({"t0": [n / 1000 for n in range(1, 1001)], "max_freezes": list(range(1, 1001))}, "varia"),
        ({"seed": list(range(100_000)), "model": ["resnet-8-8", "resnet-14-8"]}, "runs"),
    ],
)
def test_more_runs_than_any_folder_holds_are_refused_before_they_are_made(grid, what):
    with pytest.raises(RunError, match=f"at most 100,000 {what}"):
        Grid.from_dict({**VALUES, "grid": {**grid, "weight_decay": [0.1, 0.2]}}, "test")
