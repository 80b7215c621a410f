"""A tensor without storage: what code outside frozen layers holds until it needs the values.

It knows its shape, data type, device and strides, and which node of the plan it stands for. Any
other question goes to the pass that made it, which answers with another lazy tensor where it can,
and with real values where it must.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from freezeout.prefix.nodes import Node

__all__ = [
    "PAST",
    "Lazy",
    "Owner",
    "answer",
    "become_real",
    "held_by_torch",
    "is_question",
    "is_tracked",
    "lazies_in",
    "or_lazy",
    "run",
    "with_real",
]

_T: Any = torch.Tensor
_wrapper: Any = torch.Tensor._make_wrapper_subclass
_plain = torch._C.DisableTorchFunctionSubclass
held_by_torch: Callable[[torch.Tensor], int] = _T._use_count
"""How many references PyTorch counts, that of Python included."""

_GETTERS = (
    *("dtype", "device", "shape", "ndim", "layout", "names", "itemsize", "nbytes", "requires_grad"),
    *("grad", "grad_fn", "is_leaf", "retains_grad", "output_nr", "_version"),
    *("is_cpu", "is_cuda", "is_mps", "is_xpu", "is_meta", "is_sparse", "is_sparse_csr"),
    *("is_quantized", "is_nested", "is_mkldnn", "is_xla", "is_vulkan", "is_mtia", "is_maia"),
)
_METHODS = (
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "__len__"),
    *("is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_inference"),
    *("element_size", "get_device", "has_names", "__hash__"),
)
_FUNCTIONS = ("is_floating_point", "is_complex", "is_signed", "is_inference", "numel", "is_tensor")
_QUESTIONS: set[Any] = {
    *(getattr(_T, name).__get__ for name in _GETTERS if hasattr(_T, name)),
    *(getattr(_T, name) for name in _METHODS if hasattr(_T, name)),
    *(getattr(torch, name) for name in _FUNCTIONS),
}
is_question: Callable[[Any], bool] = _QUESTIONS.__contains__
"""Whether a function asks a tensor only for what is known without its values."""


class Owner(Protocol):
    """What answers for a lazy tensor: a pass, or what is left when it is over."""

    def call(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer a function of tensors of which some are lazy."""

    def real(self, lazy: Lazy) -> torch.Tensor:
        """Return the values of a lazy tensor, for code that may change them."""

    def expose(self, lazy: Lazy) -> None:
        """Note that active code has the values of a lazy tensor from now on."""


class Lazy(torch.Tensor):
    """A value of the frozen prefix that is computed when somebody needs it.

    Attributes:
        node: What it stands for.
        owner: What answers for it.
        base: The lazy tensor whose memory it would share, if it is a view.
        viewed: Whether there are views of it.
        given: The real tensor, once code had it. It may have been changed in place since.
        handed: What was given of this memory, with its version then; only where `base` is none.
        exposed: Whether active code had any of it; only where `base` is none.
    """

    node: Node
    owner: Owner
    base: Lazy | None
    viewed: bool
    given: torch.Tensor | None
    handed: list[tuple[torch.Tensor, int]] | None
    exposed: bool

    @classmethod
    def of(cls, node: Node, owner: Owner) -> Lazy:
        """Return a lazy tensor that stands for a node."""
        made: Lazy = _wrapper(
            cls, node.shape, strides=node.stride, dtype=node.dtype, device=node.device
        )
        made.node = node
        made.owner = owner
        made.base = made.given = made.handed = None
        made.viewed = made.exposed = False
        return made

    @property
    def worn(self) -> bool:
        """Whether its memory was changed since it was given: it is a node's value no more."""
        handed = (self if self.base is None else self.base).handed
        if handed is None:
            return False
        return any(t._version != version or t.requires_grad for t, version in handed)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Pass a function of lazy tensors on to their owner."""
        kwargs = kwargs or {}
        if is_question(function):
            return answer(function, args, kwargs)
        owner = next(lazies_in((args, kwargs))).owner
        return owner.call(function, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch leaves it untyped
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Give real values to what reached PyTorch's own code by another way."""
        lazies: list[Lazy] = []
        args, kwargs = with_real((args, kwargs or {}), lazies, tracked=True)
        for lazy in lazies:
            lazy.owner.expose(lazy)
        return or_lazy(function(*args, **kwargs), lazies)

    # What is asked most often is answered without a way through PyTorch.

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        """Its sizes."""
        return self.node.shape if self.given is None else self.given.shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Its data type."""
        return self.node.dtype if self.given is None else self.given.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Its device."""
        return self.node.device if self.given is None else self.given.device

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """Its number of dimensions."""
        return len(self.shape)

    @property
    def requires_grad(self) -> bool:
        """Whether it needs a gradient: only after active code has written into it."""
        return is_tracked(self) or (self.given is not None and self.given.requires_grad)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.owner.call(_T.requires_grad.__set__, (self, value), {})

    def dim(self) -> int:
        """Return its number of dimensions."""
        return len(self.shape)

    def size(self, dim: Any = None) -> Any:
        """Return its sizes, or one of them."""
        return self.shape if dim is None else self.shape[dim]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Lazy({self.node.name!r}, shape={tuple(self.shape)}, dtype={self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be saved as the real tensor."""
        return self.owner.real(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        """Be copied as the real tensor."""
        return copy.deepcopy(self.owner.real(self), memo)


def is_tracked(lazy: Lazy) -> bool:
    """Return whether autograd itself has a lazy tensor in its graph: a custom function gave it.

    Such functions run without gradients, so only what was made so must be asked.
    """
    call = lazy.node.call
    if call is None or call.state[0]:
        return False
    with torch._C.DisableTorchFunction():
        return bool(_T.requires_grad.__get__(lazy))


def answer(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Answer a question that needs no values."""
    first = args[0] if args else None
    if type(first) is Lazy and first.given is not None and not is_tracked(first):
        return function(first.given, *args[1:], **kwargs)
    with _plain():
        return function(*args, **kwargs)


def lazies_in(value: Any) -> Any:
    """Yield the lazy tensors in a value, also within tuples, lists and dictionaries."""
    if isinstance(value, Lazy):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from lazies_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from lazies_in(item)
    elif isinstance(value, slice):
        yield from lazies_in((value.start, value.stop, value.step))


def with_real(value: Any, lazies: list[Lazy], *, tracked: bool = False) -> Any:
    """Return a value with real tensors in place of lazy ones; containers without any stay.

    Args:
        value: Arguments of a function or a module.
        lazies: Those that were found are added.
        tracked: Whether to replace those, too, that are in a graph of autograd.
    """
    kind = type(value)
    if kind is Lazy:
        lazies.append(value)
        return value.owner.real(value) if tracked or not is_tracked(value) else value
    if isinstance(value, (tuple, list)):
        items = [with_real(item, lazies, tracked=tracked) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return kind(*items) if hasattr(value, "_fields") else kind(items)
    if isinstance(value, dict):
        changed = {key: with_real(item, lazies, tracked=tracked) for key, item in value.items()}
        if all(changed[key] is item for key, item in value.items()):
            return value
        if kind is dict:
            return changed
        other = copy.copy(value)
        other.update(changed)
        return other
    if kind is slice:
        return slice(*with_real((value.start, value.stop, value.step), lazies, tracked=tracked))
    return value


def run(function: Any, args: Any, kwargs: Any, lazies: Sequence[Lazy]) -> Any:
    """Run a function on arguments that `with_real` returned.

    A lazy tensor that autograd has in its graph goes through autograd, and is real below it.
    """
    if any(map(is_tracked, lazies)):
        with _plain():
            return or_lazy(function(*args, **kwargs), lazies)
    return or_lazy(function(*args, **kwargs), lazies)


def or_lazy(out: Any, lazies: Sequence[Lazy]) -> Any:
    """Return the lazy tensor in place of its real one: a function may give an argument back."""
    return next((lazy for lazy in lazies if lazy.given is out), out)


def become_real(lazy: Lazy) -> None:
    """Turn a lazy tensor that outlives its pass into the real one, wherever it is referred to."""
    given = lazy.owner.real(lazy)
    lazy.owner = PAST
    if is_tracked(lazy):
        return
    try:
        torch.utils.swap_tensors(lazy, given if given.requires_grad else given.detach())
    except RuntimeError:  # PyTorch itself refers to it; it passes on all questions from now on
        lazy.base = lazy.handed = None


class _Past:
    """What answers for lazy tensors after their pass: all of them have been given."""

    def call(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        lazies: list[Lazy] = []
        real_args, real_kwargs = with_real((tuple(args), dict(kwargs)), lazies)
        return run(function, real_args, real_kwargs, lazies)

    def real(self, lazy: Lazy) -> torch.Tensor:
        assert lazy.given is not None
        return lazy.given

    def expose(self, lazy: Lazy) -> None:
        pass


PAST: Owner = _Past()
