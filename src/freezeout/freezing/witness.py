"""Watch the bits of what is frozen, whoever may write to them.

Writes in place raise a tensor's version counter, which is read before every update. Writes past it
(through ``.data``, or other views of the memory) show in the sums of the bits, which are taken at a
freeze and compared after 1, 2, 4, 8, ... updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from freezeout.freezing.bits import digests, has_bits
from freezeout.freezing.eval_mode import chooses_only, guard_of
from freezeout.layers import named_modules

__all__ = ["Witness"]


class _Watched:
    """A tensor in its place in a module, and what it was when it was last looked at."""

    def __init__(self, name: str, owner: nn.Module, local: str) -> None:
        self.name = name
        self.owner = owner
        self._local = local
        self.is_buffer = local in owner._buffers
        self.tensor: torch.Tensor | None = None
        self.kind: tuple[Any, ...] = ()
        self.digest: int | None = None

    def now(self) -> torch.Tensor | None:
        """Return the tensor that is in the place now, if it is frozen and can be summed up."""
        place: Any = self.owner._buffers if self.is_buffer else self.owner._parameters
        tensor = place.get(self._local)
        if not isinstance(tensor, torch.Tensor) or tensor.requires_grad:
            return None
        if self.is_buffer and _learns_on(self.owner):
            return None
        return tensor if has_bits(tensor) else None

    def look(self) -> bool:
        """Take note of the tensor that is there now; return whether there is one."""
        self.tensor = tensor = self.now()
        if tensor is None:
            return False
        self.kind = (type(tensor), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        return True


def _learns_on(module: nn.Module) -> bool:
    """Return whether a module may change its buffers: it is in training mode, and may be."""
    guard = guard_of(module)
    return module.training and (guard is None or guard.keeps_flag or chooses_only(module))


class Witness:
    """Remember the bits of frozen tensors, and say which have changed."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._counted: list[torch.Tensor] = []
        self._versions: list[int] = []
        self._updates = 0
        self._next = 1

    def take(
        self,
        model: nn.Module,
        parameters: Sequence[tuple[str, nn.Parameter]],
        modules: Sequence[nn.Module],
    ) -> None:
        """Watch what is frozen now, from now on; what was watched before keeps its sums.

        So a write since the last look is not taken for right, and only what is new is summed up.

        Args:
            model: The model, without wrappers.
            parameters: Names and parameters that are frozen; one of them is enough to know it.
            modules: Modules that are in inference mode for good; their buffers do not change.
        """
        known: set[int | str] = {id(p) for _, p in parameters}
        known.update(name for name, _ in parameters)
        still = {id(module) for module in modules}
        seen = {id(w.tensor): w for w in self._watched}
        before = dict(zip(map(id, self._counted), self._versions, strict=True))
        found: list[_Watched] = []
        for path, module in named_modules(model):
            if isinstance(module, torch.jit.ScriptModule):  # its tables know names alone
                continue
            prefix = f"{path}." if path else ""
            own = [n for n, p in module._parameters.items() if {id(p), prefix + n} & known]
            own += module._buffers if id(module) in still else ()
            found += [_Watched(prefix + local, module, local) for local in own]
        self._updates, self._next = 0, 1
        self._watched = [watched for watched in found if watched.look()]
        for watched in self._watched:
            earlier = seen.get(id(watched.tensor))
            if earlier is not None and earlier.kind == watched.kind:
                watched.digest = earlier.digest
        self._note([watched for watched in self._watched if watched.digest is None])
        self._count_versions(before)

    def take_again(self) -> None:
        """Take the bits as they are now for right."""
        self._watched = [watched for watched in self._watched if watched.look()]
        self._note(self._watched)
        self._count_versions()

    def leave_thawed(self) -> None:
        """Forget what requires a gradient now: it may move, also if it freezes again."""
        self._watched = [w for w in self._watched if w.now() is not None]
        before = dict(zip(map(id, self._counted), self._versions, strict=True))
        self._count_versions(before)

    def look(self, *, everything: bool = False) -> list[str]:
        """Return the names of tensors that were written to in place and have other bits now.

        Args:
            everything: Look at all, also at what was written to in other ways.
        """
        if not everything and [t._version for t in self._counted] == self._versions:
            return []
        return self._compare()

    def update(self) -> list[str]:
        """Count an update; now and then, return the names of all that has other bits now."""
        if not self._watched:
            return []
        self._updates += 1
        if self._updates < self._next:
            return []
        self._next *= 2
        return self._compare()

    def _compare(self) -> list[str]:
        """Sum up everything, and go on from what it is now."""
        alike: list[_Watched] = []
        other: list[_Watched] = []
        for watched in self._watched:
            kind = watched.kind
            if watched.look():
                (alike if watched.kind == kind else other).append(watched)
        before = [watched.digest for watched in alike]
        self._watched = alike + other
        self._note(self._watched)
        self._count_versions()
        return [w.name for w, digest in zip(alike, before, strict=True) if w.digest != digest]

    def owners(self, names: Sequence[str]) -> dict[str, nn.Module]:
        """Return the modules that own tensors, by the names that `look` or `update` gave."""
        return {w.name: w.owner for w in self._watched if w.name in names}

    @staticmethod
    def _note(watched: Sequence[_Watched]) -> None:
        tensors = [w.tensor for w in watched if w.tensor is not None]
        for w, digest in zip(watched, digests(tensors), strict=True):
            w.digest = digest

    def _count_versions(self, before: Mapping[int, int] = MappingProxyType({})) -> None:
        tensors = [w.tensor for w in self._watched if w.tensor is not None]
        parts = [t._local_tensor for t in tensors if hasattr(t, "_local_tensor")]
        self._counted = [t for t in (*tensors, *parts) if not t.is_inference()]
        self._versions = [before.get(id(t), t._version) for t in self._counted]
