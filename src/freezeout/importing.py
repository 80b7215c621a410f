"""The user's own function, named in settings or on the command line as ``module:function``."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freezeout.errors import RunError

__all__ = [
    "Purpose",
    "call_function",
    "check_target",
    "current_folder_first",
    "error_line",
    "find_function",
    "is_target",
    "kind_of",
    "parameters_of",
]


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a function is wanted for: this is how messages speak of it.

    Attributes:
        option: Where its name is given: ``"--model"``.
        gives: What it returns: ``"the model"``.
        kind: The type of that. A name of such an object itself is refused.
        noun: What such an object is: ``"a model"``.
        anew: Why it must be made by a function: ``", so that ..."``.
        offers: Arguments that it gets by name, where it takes them.
    """

    option: str
    gives: str
    kind: type
    noun: str
    anew: str = ""
    offers: tuple[str, ...] = ()


def is_target(text: str) -> bool:
    """Whether a text is meant as ``module:function``: it has a colon.

    Example:
        >>> is_target("mypackage.nets:make_net"), is_target("wrn-40-4")
        (True, False)
    """
    return ":" in text


def check_target(target: str, purpose: Purpose) -> tuple[str, str]:
    """Takes ``module:function`` apart; nothing is imported.

    Args:
        target: The text.
        purpose: What the function is wanted for.

    Returns:
        The module and the path within it.

    Raises:
        ValueError: If it has another form; the message is one line.
    """
    module, colon, path = target.partition(":")
    option = purpose.option
    if "/" in module or "\\" in module or module.endswith(".py"):
        name = re.sub(r"[/\\]+", ".", module.removesuffix(".py")).strip(".")
        raise ValueError(
            f"{option} names a module, not a file, got {target!r}. Write "
            f"{option} {name}:{path or 'FUNCTION'}, in the folder above it."
        )
    if not colon or ":" in path or not all(module.split(".") + path.split(".")):
        before, _, last = module.rpartition(".")
        meant = f"{before}:{last}" if before and last and not colon else "package.module:function"
        raise ValueError(
            f"{option} must name a module and, after a colon, the function in it that makes "
            f"{purpose.gives}, got {target!r}. Write it as in {option} {meant}."
        )
    return module, path


@contextmanager
def current_folder_first() -> Iterator[None]:
    """The current folder is first on ``sys.path``, as with ``python -m``.

    Raises:
        RunError: If it does not exist any more.
    """
    try:
        folder = str(Path.cwd())
    except OSError as error:
        raise RunError("the current folder does not exist any more. Go to another.") from error
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # a file may be younger than the last look into its folder
    try:
        yield
    finally:
        if folder in sys.path:  # only one entry: the module may have added its own
            sys.path.remove(folder)


def find_function(target: str, purpose: Purpose) -> Callable[..., Any]:
    """Imports the module and looks the function up; see `current_folder_first`.

    Args:
        target: ``module:function``; dots after the colon reach into classes and objects.
        purpose: What the function is wanted for.

    Returns:
        The function, which can be called with what the purpose offers, or less.

    Raises:
        RunError: If it cannot be found or called; the message is one line and says what to do.
    """
    try:
        module_name, path = check_target(target, purpose)
    except ValueError as error:
        raise RunError(str(error)) from error
    found: Any = _import(module_name)
    where = f"module {module_name}"
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            close = difflib.get_close_matches(name, [n for n in dir(found) if n[:2] != "__"], n=1)
            advice = f"Did you mean {close[0]!r}?" if close else f"Name what makes {purpose.gives}."
            raise RunError(f"{where} has no {name!r}. {advice}") from error
        except Exception as error:  # some packages import only when asked for a name
            raise _failed(f"looking up {target}", f"import {module_name}", error) from error
        where = f"{module_name}:{name}" if where.startswith("module") else f"{where}.{name}"
    if isinstance(found, purpose.kind):
        raise RunError(
            f"{target} is {purpose.noun} already ({type(found).__name__}), not a function that "
            f"makes one. Write one that returns it{purpose.anew}."
        )
    taken = purpose.offers
    if not callable(found):
        raise RunError(
            f"{target} must be a function that returns {purpose.gives}, got "
            f"{type(found).__name__}. Name one that can be called without "
            f"{'other arguments than ' + _listed(taken) if taken else 'arguments'}."
        )
    missing = [name for name in _required(found) if name not in _by_name(found, taken)]
    if missing and taken:
        raise RunError(
            f"{target} is called with those of {_listed(taken)} that it takes by name, but needs "
            f"{', '.join(missing)}. Give defaults, or write a function that calls it."
        )
    if missing:
        raise RunError(
            f"{target} is called without arguments, but needs {', '.join(missing)}. Give defaults, "
            f"or write a function without arguments that calls it."
        )
    function: Callable[..., Any] = found
    return function


def call_function(
    target: str, function: Callable[..., Any], offers: Mapping[str, Any] | None = None
) -> Any:
    """Calls a function that was found with those of some arguments that it takes by name.

    Args:
        target: Its name.
        function: The function.
        offers: The arguments.

    Returns:
        What it returns.

    Raises:
        RunError: If it raises; the message is one line and says what to do.
    """
    names = _by_name(function, tuple(offers or ()))
    arguments = {name: value for name, value in (offers or {}).items() if name in names}
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        module, _, path = target.partition(":")
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        code = f"import {module}; {module}.{path}({given})"
        raise _failed(f"calling {target}", code, error) from error


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function; none where it does not tell them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # not every built-in or scripted function tells its arguments
        return {}


def error_line(error: BaseException) -> str:
    """An error's type and the first line of its text."""
    first = next(iter(str(error).strip().splitlines()), "").rstrip(" .:")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def kind_of(value: object) -> str:
    """What a value is, in a message: the name of its type."""
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise RunError(
                f"no module named {error.name!r} was found, neither in {Path.cwd()} nor among the "
                "installed packages. Run freezeout in the folder that holds it."
            ) from error
        raise _failed(f"importing {name}", f"import {name}", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"importing {name}", f"import {name}", error) from error


def _required(function: Callable[..., Any]) -> list[str]:
    """Arguments without a default."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = parameters_of(function).values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _by_name(function: Callable[..., Any], names: Sequence[str]) -> set[str]:
    """Those of some names that a function takes as names of arguments."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = parameters_of(function).values()
    taken = {p.name for p in parameters if p.kind in named}
    fixed = {p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return set(names) - fixed
    return taken & set(names)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _failed(what: str, code: str, error: BaseException) -> RunError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return RunError(
            f"{what} failed: it needs {error.name!r}, which was not found. Install it beside "
            f"freezeout (in {sys.prefix}), or run freezeout in the folder that holds it."
        )
    if isinstance(error, SystemExit):
        return RunError(
            f"{what} ended the program (SystemExit). A script that trains must do so under "
            "if __name__ == '__main__': only."
        )
    return RunError(f"{what} failed: {error_line(error)}. See where: python -c '{code}'")
