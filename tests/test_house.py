"""The house: which rooms there are, who imports whom, and what a room's face may hold."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib

import freezeout
from freezeout.lab.cli.attempt import EXTRAS

ROOT = Path(freezeout.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FACES = [path for path in FILES if path.stem == "__init__"]
LAZY_FACES = [path for path in FACES if "lazy_names(" in path.read_text("utf-8")]

# From the top of the house down: a room imports rooms above it only.
ROOMS = (
    *("lazy", "errors", "tensors", "text", "storage", "schedule", "layers", "wrappers"),
    *("freezing", "policies", "scheduler", "reference", "cache", "prefix", "recording"),
    *("costs", "planning"),
    *("integrations", "lab"),
)
LAB_ROOMS = (
    *("streams", "locks", "importing", "models", "data", "training", "evidence", "report"),
    *("experiments", "finetuning", "cli"),
)
ON_STANDARD_LIBRARY = {"lazy", "errors", "text", "storage", "schedule"}
AT_THE_ROOT = {"__init__", "__main__", "errors", "lazy", "reference", "tensors", "text"}
MOST_LINES = 400


def module_name(path: Path) -> str:
    parts = ["freezeout", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
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
                yield full if full in MODULES else target


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    found = imports(path.read_text("utf-8"), module, is_package=path.stem == "__init__")
    return set(found) - {module}


IMPORTS = {module: imports_of(module) for module in MODULES}
OURS = {module: found & MODULES.keys() for module, found in IMPORTS.items()}


def room_of(module: str) -> str:
    """The room at the root that a module lies in; ``""`` for the root's own face."""
    return [*module.split("."), ""][1]


def lab_room_of(module: str) -> str:
    """The room of the lab that a module lies in; ``""`` outside the lab and for its face."""
    parts = module.split(".")
    return parts[2] if parts[1:2] == ["lab"] and len(parts) > 2 else ""


def upwards(edges: Iterator[tuple[str, str]], order: tuple[str, ...]) -> list[str]:
    """Imports of a room that does not lie above the one that imports it."""
    place = {room: i for i, room in enumerate(order)}
    return [f"{a} imports {b}" for a, b in edges if place[a] <= place[b] and a != b]


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other, directly or through others."""
    reached = {start: reach(graph, start) for start in graph}
    found: list[set[str]] = []
    for start in graph:
        group = {other for other in reached[start] if start in reached[other]}
        if group and group not in found:
            found.append(group)
    return found


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    return seen


def is_allowed(importer: str, target: str) -> bool:
    """Whether a module may name another: the face of a room, or a file of the rooms around it."""
    if MODULES[target].stem == "__init__":
        return True
    around = target.rpartition(".")[0]
    return importer == around or importer.startswith(around + ".")


# --- Who imports whom --------------------------------------------------------------------------


def test_imports_are_seen_wherever_they_stand():
    source = (
        "import torch.nn as nn\n"
        "from freezeout import layers, __version__\n"
        "def f():\n    from .schedule import Schedule\n"
        "if TYPE_CHECKING:\n    from . import errors\n"
    )
    assert list(imports(source, "freezeout.scheduler")) == [
        "torch.nn",
        "freezeout.layers",
        "freezeout",
        "freezeout.schedule",
        "freezeout.errors",
    ]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]


def test_upward_imports_are_found():
    assert upwards(iter([("low", "high"), ("high", "low")]), ("high", "low")) == [
        "high imports low"
    ]


def test_a_file_of_another_room_is_not_allowed():
    assert is_allowed("freezeout.layers.split", "freezeout.layers.layer")
    assert is_allowed("freezeout.scheduler.scheduler", "freezeout.layers")
    assert not is_allowed("freezeout.scheduler.scheduler", "freezeout.layers.layer")
    assert is_allowed("freezeout.lab.report.figures.figure", "freezeout.lab.report.table")


def test_every_room_has_its_place():
    assert {room_of(module) for module in MODULES} - {"", "__main__"} <= {*ROOMS}
    assert {lab_room_of(module) for module in MODULES} - {""} <= {*LAB_ROOMS}


def test_imports_point_down():
    edges = [
        (room_of(a), room_of(b))
        for a, found in OURS.items()
        for b in found
        if room_of(a) not in ("", "__main__") and room_of(b)
    ]
    assert len(edges) > 100
    assert upwards(iter(edges), ROOMS) == []


def test_imports_point_down_in_the_lab():
    edges = [
        (lab_room_of(a), lab_room_of(b))
        for a, found in OURS.items()
        for b in found
        if lab_room_of(a) and lab_room_of(b)
    ]
    assert len(edges) > 100
    assert upwards(iter(edges), LAB_ROOMS) == []


def test_nothing_but_the_command_line_imports_the_lab():
    found = {
        a for a, found in OURS.items() for b in found if room_of(b) == "lab" and room_of(a) != "lab"
    }
    # The roof names it for type checkers alone: `test_importing_the_package_loads_no_extra`.
    assert found == {"freezeout.__main__", "freezeout"}


def test_there_is_no_circle():
    # The roof names all its rooms, the lab for type checkers only; below, the command line asks it
    # for the version.
    graph = {a: found - {"freezeout"} for a, found in OURS.items() if a != "freezeout"}
    assert circles(graph) == []


def test_outside_a_room_one_imports_the_room():
    assert [
        f"{a} imports {b}"
        for a, found in OURS.items()
        for b in found
        if not is_allowed(a, b)
    ] == []  # fmt: skip


def test_the_core_needs_nothing_but_torch():
    foreign: dict[str, set[str]] = {}
    for module, found in IMPORTS.items():
        names = {name.split(".")[0] for name in found} - {*sys.stdlib_module_names, "freezeout"}
        foreign.setdefault(room_of(module), set()).update(names)
    assert {room for room in ON_STANDARD_LIBRARY if foreign[room]} == set()
    core = {*foreign} - ON_STANDARD_LIBRARY - {"integrations", "lab"}
    found = set().union(*(foreign[room] for room in core))
    assert found == {"torch", "typing_extensions"}  # torch itself needs the second


def test_each_adapter_imports_its_own_framework_alone():
    ordinary = {"torch", "typing_extensions", *sys.stdlib_module_names, "freezeout"}
    found = {
        module.rpartition(".")[2]: {name.split(".")[0] for name in names} - ordinary
        for module, names in IMPORTS.items()
        if room_of(module) == "integrations"
    }
    assert {name: names for name, names in found.items() if names} == {
        "lightning": {"lightning", "pytorch_lightning"},
        "transformers": {"transformers"},
    }


def test_all_that_the_lab_imports_is_declared_and_named_where_it_is_missing():
    """But for what has an extra of its own, and `tomllib`, for which Python 3.10 has tomli."""
    of_their_own = {"ray", "tensorboard"}
    ordinary = {"torch", *sys.stdlib_module_names, "freezeout", "tomllib"}
    found = {
        name.split(".")[0]
        for module, names in IMPORTS.items()
        if room_of(module) == "lab"
        for name in names
    }
    found -= ordinary | of_their_own
    assert {"psutil", "PIL"} <= found
    assert found == {*EXTRAS}
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extra = {_package(line) for line in project["optional-dependencies"]["lab"]}
    differently_named = {"PIL": "pillow", "sklearn": "scikit-learn"}
    assert extra == {differently_named.get(name, name.replace("_", "-")) for name in found}


def _package(requirement: str) -> str:
    return re.split(r"[><=; ]", requirement)[0]


# --- Rooms and files ---------------------------------------------------------------------------


def test_the_root_holds_these_files_alone():
    assert {path.stem for path in ROOT.glob("*.py")} == AT_THE_ROOT


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


def test_every_folder_is_a_room():
    folders = {path.parent for path in FILES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", FACES, ids=module_name)
def test_a_face_names_what_the_room_gives_away_and_defines_nothing(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert defined == []
    module = importlib.import_module(module_name(path))
    assert module.__all__
    for name in module.__all__:
        assert hasattr(module, name)


@pytest.mark.parametrize("path", FACES, ids=module_name)
def test_no_name_of_a_face_hides_a_file_of_the_room(path):
    module = importlib.import_module(module_name(path))
    inside = {other.stem for other in path.parent.glob("*.py")} | {
        other.parent.name for other in path.parent.glob("*/__init__.py")
    }
    hidden = [
        name
        for name in inside & {*module.__all__}
        if type(getattr(module, name)) is not type(module)
    ]
    assert hidden == []


@pytest.mark.parametrize("name", ["layers", "wrappers", "freezing", "prefix"])
def test_a_hard_room_has_a_page_that_explains_it(name):
    text = (ROOT / name / "README.md").read_text("utf-8")
    for path in (ROOT / name).glob("*.py"):
        if path.stem != "__init__":
            assert f"`{path.stem}" in text, path.stem


# --- One import reaches everything, and loads little -------------------------------------------


def in_a_new_process(program: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    return ran.stdout


def test_importing_the_package_loads_no_extra():
    extras = {"rich", "matplotlib", "scipy", "sklearn", "pooch", "tensorboard", "tomli_w"}
    extras |= {"jinja2", "psutil", "lightning", "transformers", "accelerate"}
    program = (
        "import sys, freezeout\n"
        "print('torch' in sys.modules, [m for m in sys.modules if m.startswith('freezeout.')])\n"
        "for name in freezeout.__all__: getattr(freezeout, name)\n"
        "rooms = {'freezeout.lab', 'freezeout.integrations', 'freezeout.reference'}\n"
        f"print('torch' in sys.modules, sorted(({extras} | rooms) & set(sys.modules)))\n"
    )
    assert in_a_new_process(program) == "False ['freezeout.lazy']\nTrue []\n"


@pytest.mark.parametrize("path", LAZY_FACES, ids=module_name)
def test_what_a_face_imports_later_is_what_type_checkers_see(path):
    nodes = ast.parse(path.read_text("utf-8")).body
    later = next(node for node in nodes if isinstance(node, ast.If))
    assert ast.unparse(later.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    face = importlib.import_module(module_name(path))
    seen = {alias.name: node.module for node in later.body for alias in node.names}
    assert len(seen) == sum(len(node.names) for node in later.body)
    for name, home in seen.items():
        assert getattr(face, name) is getattr(importlib.import_module(home), name)
    rooms = {name for name, home in seen.items() if home == face.__name__}
    assert {*seen} - rooms <= {*face.__all__}
    assert {*seen} <= {*dir(face)}


def test_names_of_a_face_survive_a_star_a_pickle_and_a_second_look():
    program = (
        "from freezeout import *\n"
        "import freezeout, pickle\n"
        "assert pickle.loads(pickle.dumps(freezeout.Schedule)) is Schedule\n"
        "print(vars(freezeout)['Schedule'] is Schedule, plan is freezeout.planning.plan)\n"
    )
    assert in_a_new_process(program) == "True True\n"


def test_one_import_reaches_every_public_room():
    rooms = sorted({module_name(path) for path in FACES} - {"freezeout.lab.cli.plan"})
    assert "freezeout.lab.evidence" in rooms
    rooms += ["freezeout.reference", "freezeout.integrations.lightning"]
    program = f"import freezeout\nfor room in {rooms}:\n    eval(room)\n"
    assert in_a_new_process(program) == ""


def test_rooms_of_the_lab_load_no_plots_statistics_or_trainers():
    heavy = {"matplotlib", "scipy", "sklearn", "pooch", "ray", "lightning", "transformers"}
    program = (
        "import sys, freezeout\n"
        "lab = freezeout.lab\n"
        "lab.evidence, lab.report, lab.training, lab.experiments, lab.data, lab.models, lab.cli\n"
        f"print(sorted({heavy} & set(sys.modules)))\n"
    )
    assert in_a_new_process(program) == "[]\n"


def test_rooms_that_are_imported_later_are_listed():
    program = (
        "import freezeout\n"
        "print({'integrations', 'lab', 'reference', 'plan'} - {*dir(freezeout)},"
        " {*freezeout.lab.__all__} - {*dir(freezeout.lab)},"
        " {'figures', 'terminal', 'Table'} - {*dir(freezeout.lab.report)},"
        " {'lightning', 'transformers'} - {*dir(freezeout.integrations)})\n"
    )
    assert in_a_new_process(program) == "set() set() set() set()\n"


def test_a_name_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = freezeout.nothing
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = freezeout.lab.nothing
