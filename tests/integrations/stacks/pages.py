"""Pages and examples of one framework, run where that framework is known to be installed."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import freezeout

ROOT = Path(__file__).parents[3]


def run_page(name: str) -> dict[str, object]:
    """Runs all Python of a page of docs/integrations in order.

    Returns:
        The names that it leaves.
    """
    page = ROOT / "docs" / "integrations" / f"{name}.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)
    assert blocks
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)
    assert isinstance(scope["scheduler"], freezeout.FreezeOut)
    return scope


def load_example(name: str) -> ModuleType:
    """A script of the examples, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
