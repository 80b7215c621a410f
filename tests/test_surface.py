"""The public surface: exported names, their docstrings, examples in docstrings."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import freezeout

ROOT = Path(freezeout.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path.stem != "__main__")
FACES = [path for path in FILES if path.stem == "__init__" and path.parent != ROOT]
CORE = [
    path
    for path in FILES
    if path.stem != "__init__" and path.relative_to(ROOT).parts[0] not in ("integrations", "lab")
]
WITH_EXAMPLES = [
    path for path in FILES if ">>> " in path.read_text("utf-8") and "integrations" not in path.parts
]


def module_name(path: Path) -> str:
    parts = ["freezeout", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# --- Exported names ----------------------------------------------------------------------------


def test_exported_names_are_these():
    assert freezeout.__all__ == [
        "CheckpointError",
        "CostError",
        "Costs",
        "DataError",
        "DistributedError",
        "DivergenceError",
        "FreezeEvent",
        "FreezeOut",
        "FreezeOutError",
        "Freezer",
        "FrozenPrefixWarning",
        "Layer",
        "LayerCost",
        "Layers",
        "MovementError",
        "MovementWarning",
        "Plan",
        "PrefixError",
        "RunError",
        "Schedule",
        "SplitError",
        "freeze_times",
        "is_active",
        "measure_costs",
        "plan",
        "predicted_saving",
        "split_layers",
        "unfreeze",
    ]


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_adapters_export_a_callback_alone(name):
    tree = ast.parse((ROOT / "integrations" / f"{name}.py").read_text("utf-8"))
    public = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    (exported,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert public == exported == ["FreezeOutCallback"]


def test_nothing_else_is_public_but_modules():
    public = {name for name in vars(freezeout) if not name.startswith("_")}
    others = public - set(freezeout.__all__)
    assert not [name for name in others if not inspect.ismodule(getattr(freezeout, name))]
    assert freezeout.__version__.count(".") == 2


@pytest.mark.parametrize("name", freezeout.__all__)
def test_exported_names_are_documented(name):
    thing = getattr(freezeout, name)
    assert thing.__doc__
    assert thing.__doc__.strip().splitlines()[0].endswith((".", ":"))
    if not inspect.isclass(thing):
        return
    for method, function in vars(thing).items():
        if not method.startswith("_") and (
            inspect.isfunction(function) or isinstance(function, property)
        ):
            assert function.__doc__, f"{name}.{method}"


def first_words(kind):
    """The first word of every docstring of this kind, with the name it belongs to."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, kind) and (said := ast.get_docstring(node)):
                yield said.split()[0], f"{module_name(path)}.{node.name}"


def test_classes_are_described_in_the_imperative_mood_too():
    # Ruff's D401 checks functions: they begin with verbs. "Runs a step" is "Run a step".
    verbs = {word for word, _ in first_words(ast.FunctionDef)}
    assert {"Return", "Run", "Count"} <= verbs
    classes = list(first_words(ast.ClassDef))
    assert len(classes) > 100
    assert [
        name
        for word, name in classes
        if word.endswith("s") and {word[:-1], word[:-2]} & verbs and word != "Sums"
    ] == []


@pytest.mark.parametrize("path", FACES, ids=module_name)
def test_what_a_room_gives_away_is_documented(path):
    module = importlib.import_module(module_name(path))
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
            assert thing.__doc__, name


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_modules_name_what_they_export(path):
    module = importlib.import_module(module_name(path))
    assert module.__doc__
    assert module.__all__
    for name in module.__all__:
        assert hasattr(module, name)
        assert not name.startswith("_")
    defined = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
    }
    assert defined <= set(module.__all__)


def test_errors_descend_from_one_and_bad_arguments_do_not():
    errors = importlib.import_module("freezeout.errors")
    kinds = [name for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
    assert len(kinds) > 5
    for name in kinds:
        kind = getattr(errors, name)
        base = UserWarning if name.endswith("Warning") else freezeout.FreezeOutError
        assert issubclass(kind, base)
        assert not issubclass(kind, (ValueError, TypeError))
        assert name in errors.__doc__.split()  # drawn in the tree at the top
    assert not issubclass(freezeout.FrozenPrefixWarning, freezeout.FreezeOutError)


# --- Examples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_docstring_examples_run(path):
    module = importlib.import_module(module_name(path))
    failures, attempted = doctest.testmod(module, verbose=False)
    assert failures == 0
    assert attempted > 0 or "+SKIP" in path.read_text("utf-8")


@pytest.mark.parametrize("room", ["schedule", "layers", "freezing", "scheduler", "costs"])
def test_the_main_rooms_show_examples(room):
    assert [path for path in WITH_EXAMPLES if path.parent == ROOT / room]


@pytest.mark.parametrize("name", ["FreezeOut", "Freezer", "Schedule", "freeze_times"])
def test_the_main_names_show_an_example(name):
    assert ">>> " in getattr(freezeout, name).__doc__
