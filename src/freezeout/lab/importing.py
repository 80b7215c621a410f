"""Custom functions: the user's network or data, named ``module:function``."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from freezeout.errors import RunError
from freezeout.text import did_you_mean, first_line

__all__ = ["Factory", "error_line", "is_custom", "kind_of", "parameters_of"]


def is_custom(name: str) -> bool:
    """Tell whether a name of a network or of data is ``module:function``: it has a colon.

    Example:
        >>> is_custom("mypackage.nets:make_net"), is_custom("wrn-40-4")
        (True, False)
    """
    return ":" in name


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A kind of function that users write: what it makes, and how messages speak of it.

    Attributes:
        option: Where its name is given: ``"--model"``.
        makes: What it returns: ``"the model"``.
        kind: The type of that. A name of such an object itself is refused.
        noun: What such an object is: ``"a model"``.
        reason: Why a function must make it: ``", so that ..."``.
        offers: Names of the arguments that the function may get.
        source: The option from which these come: ``"--data"``.
    """

    option: str
    makes: str
    kind: type
    noun: str
    reason: str = ""
    offers: tuple[str, ...] = ()
    source: str = ""

    def check(self, name: str) -> bool:
        """Tell whether a name is custom, and check its form; nothing is imported.

        Raises:
            ValueError: If it has a colon, but not the form ``module:function``, or names a file;
                the message is one line.
        """
        if is_custom(name) or name.endswith(".py"):
            self._split(name)
            return True
        return False

    def call(self, target: str, offers: Mapping[str, Any] | None = None) -> Any:
        """Import the module, call the function, and return what it returns.

        The function gets those of the offered arguments that it takes by name. The current folder
        is first on ``sys.path`` meanwhile, as with ``python -m``. Importing does not move torch's
        generator on the CPU: what the function draws is the same whether its module was imported
        before or not.

        Args:
            target: ``module:function``; dots after the colon reach into classes and objects.
            offers: The arguments, all of `offers` or none.

        Raises:
            RunError: If the function cannot be found or called, or fails; the message is one line
                and says what to do.
        """
        offers = offers or {}
        with _current_folder_first():
            with torch.random.fork_rng(devices=[]):
                function = self._find(target)
            self._check_arguments(target, function, offers)
            names = _by_name(function, offers)
            arguments = {name: value for name, value in offers.items() if name in names}
            try:
                return function(**arguments)
            except (Exception, SystemExit) as error:
                module, _, path = target.partition(":")
                given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
                code = f"import {module}; {module}.{path}({given})"
                raise _failed(f"calling {target}", code, error) from error

    def _split(self, target: str) -> tuple[str, str]:
        """Split a name into the module and the path within it."""
        module, _, path = target.partition(":")
        option = self.option
        if "/" in module or "\\" in module or module.endswith(".py"):
            name = re.sub(r"[/\\]+", ".", module.removesuffix(".py")).strip(".")
            raise ValueError(
                f"{option} names a module, not a file, got {target!r}. Write "
                f"{option} {name}:{path or 'FUNCTION'}, in the folder above it."
            )
        if ":" in path or not all(module.split(".") + path.split(".")):
            raise ValueError(
                f"{option} must name a module and, after a colon, the function in it that makes "
                f"{self.makes}, got {target!r}. Write it as in {option} package.module:function."
            )
        return module, path

    def _find(self, target: str) -> Callable[..., Any]:
        try:
            module_name, path = self._split(target)
        except ValueError as error:
            raise RunError(str(error)) from error
        found: Any = _import(module_name)
        where = f"module {module_name}"
        for name in path.split("."):
            try:
                found = getattr(found, name)
            except AttributeError as error:
                names = [n for n in dir(found) if not n.startswith("__")]
                advice = did_you_mean(name, names, f"Name what makes {self.makes}.")
                raise RunError(f"{where} has no {name!r}. {advice}") from error
            except Exception as error:  # some packages import only when asked for a name
                raise _failed(f"looking up {target}", f"import {module_name}", error) from error
            where = f"{module_name}:{name}" if where.startswith("module") else f"{where}.{name}"
        if isinstance(found, self.kind):
            raise RunError(
                f"{target} is {self.noun} already ({type(found).__name__}), not a function that "
                f"makes one. Write one that returns it{self.reason}."
            )
        if not callable(found):
            others = f"other arguments than {_listed(self.offers)}" if self.offers else "arguments"
            raise RunError(
                f"{target} must be a function that returns {self.makes}, got "
                f"{type(found).__name__}. Name one that can be called without {others}."
            )
        function: Callable[..., Any] = found
        return function

    def _check_arguments(
        self, target: str, function: Callable[..., Any], offers: Mapping[str, Any]
    ) -> None:
        """Raise if the function needs arguments that it will not get."""
        missing = [name for name in _required(function) if name not in _by_name(function, offers)]
        if not missing:
            return
        if offers:
            how = f"with those of {_listed(self.offers)} that it takes by name"
            way = "write a function that calls it"
        elif set(missing) <= _by_name(function, self.offers):
            how, way = f"without arguments where {self.source} is not given", f"add {self.source}"
        else:
            how, way = "without arguments", "write a function without arguments that calls it"
        raise RunError(
            f"{target} is called {how}, but needs {', '.join(missing)}. Give defaults, or {way}."
        )


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function; none where it does not tell them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # not every built-in or scripted function tells its arguments
        return {}


def error_line(error: BaseException) -> str:
    """Return an error's type and the first line of its text."""
    first, kind = first_line(error), type(error).__name__
    return kind if first == kind else f"{kind}: {first}"


def kind_of(value: object) -> str:
    """Return what a value is, for a message: the name of its type."""
    if value is None:
        return "None"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Put the current folder first on ``sys.path``, as with ``python -m``."""
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
    """Return the names of arguments without a default."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = parameters_of(function).values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _by_name(function: Callable[..., Any], names: Iterable[str]) -> set[str]:
    """Return those of some names that a function takes as names of arguments."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = parameters_of(function).values()
    taken = {p.name for p in parameters if p.kind in named}
    fixed = {p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return set(names) - fixed
    return taken & set(names)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _failed(what: str, code: str, error: BaseException) -> RunError:
    """Return the error for code of the user's that failed; `code` shows where it failed."""
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
