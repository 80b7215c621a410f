"""The public surface: exported names, who imports whom, examples in docstrings."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import freezeout

ROOT = Path(freezeout.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
CORE = sorted(path for path in ROOT.glob("*.py") if path.stem not in ("__init__", "__main__"))

# DESIGN, "Parts, and who may import whom": each part may import itself and these.
BASE = {"errors", "durations"}
LOW = BASE | {"merging", "layers", "schedule", "tensors", "optimizers", "distributed", "compiled"}
MIDDLE = LOW | {"freezing", "groups", "cost"}
HIGH = MIDDLE | {"scheduler", "saving", "planner"}
ALLOWED = {
    "errors": set(),
    "durations": set(),
    "importing": BASE,
    "merging": set(),
    "schedule": BASE | {"merging"},
    "tensors": BASE,
    "layers": BASE | {"tensors"},
    "optimizers": BASE | {"tensors"},
    "compiled": BASE | {"layers"},
    "distributed": BASE | {"layers", "tensors"},
    "freezing": LOW,
    "groups": LOW,
    "cost": LOW | {"freezing", "groups"},  # it measures with layers really frozen
    "paper_estimate": BASE | {"schedule", "merging"},
    "scheduler": MIDDLE,
    "saving": MIDDLE | {"scheduler"},
    "planner": MIDDLE | {"saving"},
    "reference": MIDDLE,
    "models": BASE | {"importing"},
    "data": BASE | {"importing"},
    # the control trains with the oracle
    "training": HIGH | {"importing", "models", "data", "reference"},
    "evidence": BASE,
    "report": BASE | {"evidence"},
    "experiments": HIGH | {"models", "data", "training", "evidence", "report"},
    "integrations": HIGH,
    "cli": HIGH
    | {"models", "data", "training", "report", "integrations", "freezeout"}
    | {"paper_estimate", "evidence", "experiments", "importing"},
    "__main__": {"cli"},
    "freezeout": HIGH,  # its __init__: re-exports the core and nothing of the rest
}
PRIVATE = {
    "_boundary": "freezing",
    "_hooks": "freezing",
    "_first_look": "freezing",
    "_reentrant": "freezing",
    "_agreement": "distributed",
    "_reducer": "distributed",
    "_sharded": "distributed",
    "_scheduler_checks": "scheduler",
    "_dynamo": "compiled",
    "_cut": "layers",
    "_trace": "layers",
    "_schedule_checks": "schedule",
    "_cost_checks": "cost",
    "_cost_text": "cost",
    "_fit": "cost",
    "_flops": "cost",
    "_step": "cost",
    "_step_errors": "cost",
    "_measure": "cost",
    "_snapshot": "cost",
    "_timeline": "cost",
    "_allocate": "planner",
    "_plan_text": "saving",
}
ON_STANDARD_LIBRARY = {
    "errors",
    "merging",
    "durations",
    "importing",
    "schedule",
    "planner",
    "paper_estimate",
}
ON_TORCH = {
    "tensors",
    "layers",
    "optimizers",
    "distributed",
    "compiled",
    "freezing",
    "groups",
    "cost",
    "saving",
    "scheduler",
    "reference",
    "models",
}


def module_name(path: Path) -> str:
    parts = ["freezeout", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of DESIGN that a module of ours belongs to."""
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0] or package
    return PRIVATE.get(name, name)


def imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that a source imports, anywhere in it, by its absolute name."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{target}.{alias.name}"
                yield full if is_ours(full) else target


def is_ours(module: str) -> bool:
    path = ROOT.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def edges() -> list[tuple[str, str]]:
    return [
        (module_name(path), target)
        for path in FILES
        for target in imports(
            path.read_text("utf-8"), module_name(path), is_package=path.stem == "__init__"
        )
    ]


# --- Who imports whom --------------------------------------------------------------------------


def test_imports_are_seen_wherever_they_stand():
    source = (
        "import torch.nn as nn\n"
        "from freezeout import layers, __version__\n"
        "def f():\n    from .schedule import Schedule\n"
        "if TYPE_CHECKING:\n    from . import errors\n"
    )
    found = list(imports(source, "freezeout.scheduler", is_package=False))
    assert found == [
        "torch.nn",
        "freezeout.layers",
        "freezeout",
        "freezeout.schedule",
        "freezeout.errors",
    ]


def test_every_part_has_a_rule():
    assert {part_of(module_name(path)) for path in FILES} <= ALLOWED.keys()
    assert {"errors", "schedule", "layers", "freezing", "scheduler"} <= {
        part_of(module_name(path)) for path in FILES
    }


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_the_design_allows(part):
    forbidden = [
        f"{source} imports {target}"
        for source, target in edges()
        if part_of(source) == part
        and target.split(".")[0] == "freezeout"
        and part_of(target) not in ALLOWED[part] | {part}
    ]
    assert forbidden == []


def test_private_modules_are_imported_only_by_their_own_part():
    forbidden = [
        f"{source} imports {target}"
        for source, target in edges()
        if target.startswith("freezeout.")
        and target.rpartition(".")[2].startswith("_")
        and (
            part_of(source) != part_of(target)
            or target.rpartition(".")[0] not in (source, source.rpartition(".")[0])
        )
    ]
    assert forbidden == []


def test_the_core_needs_nothing_but_torch():
    foreign = {
        (part_of(source), target.split(".")[0])
        for source, target in edges()
        if target.split(".")[0] not in {*sys.stdlib_module_names, "freezeout"}
    }
    assert not [(part, name) for part, name in foreign if part in ON_STANDARD_LIBRARY]
    assert {name for part, name in foreign if part in ON_TORCH} == {"torch"}


def test_each_adapter_imports_its_own_framework_alone():
    ordinary = {"torch", *sys.stdlib_module_names, "freezeout"}
    found = {
        path.stem: {
            target.split(".")[0]
            for target in imports(path.read_text("utf-8"), module_name(path), is_package=False)
        }
        - ordinary
        for path in sorted((ROOT / "integrations").glob("*.py"))
    }
    assert found == {
        "__init__": set(),
        "_common": set(),
        "lightning": {"lightning", "pytorch_lightning"},  # one framework under two names
        "transformers": {"transformers"},
    }


def test_importing_the_package_loads_no_extra():
    program = (
        "import sys, freezeout\n"
        "extras = {'rich', 'matplotlib', 'sklearn', 'pooch', 'tensorboard', 'tomli_w', 'pandas',"
        " 'lightning', 'transformers', 'accelerate'}\n"
        "parts = {f'freezeout.{p}' for p in"
        " ('training', 'data', 'models', 'report', 'cli', 'integrations', 'reference')}\n"
        "print(sorted((extras | parts) & set(sys.modules)))\n"
        "print('torch' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout == "[]\nTrue\n"


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


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
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
    for name in errors.__all__:
        kind = getattr(errors, name)
        base = UserWarning if name.endswith("Warning") else freezeout.FreezeOutError
        assert issubclass(kind, base)
        assert not issubclass(kind, (ValueError, TypeError))
        assert name in errors.__doc__.split()  # drawn in the tree at the top
    assert not issubclass(freezeout.FrozenPrefixWarning, freezeout.FreezeOutError)


# --- Examples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_docstring_examples_run(path):
    module = importlib.import_module(module_name(path))
    failures, attempted = doctest.testmod(module, verbose=False)
    assert failures == 0
    if path.stem in ("schedule", "layers", "freezing", "scheduler"):
        assert attempted > 0


@pytest.mark.parametrize("name", ["FreezeOut", "Freezer", "Schedule", "freeze_times"])
def test_the_main_names_show_an_example(name):
    assert ">>> " in getattr(freezeout, name).__doc__
