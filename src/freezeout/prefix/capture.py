"""Capture the frozen prefix of a model that is not edited: enter at its forward pass, and leave."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from freezeout.errors import FrozenPrefixWarning, check_whole
from freezeout.freezing import FreezeEvent, Freezer, Hook
from freezeout.layers import Layers
from freezeout.prefix.constants import Constants, Generations
from freezeout.prefix.forward_pass import ForwardPass
from freezeout.prefix.memory import Memory
from freezeout.prefix.nodes import Plan
from freezeout.prefix.source import Source
from freezeout.prefix.stand_ins import StandIns
from freezeout.prefix.watching import take_off, watching_now
from freezeout.tensors import tensors_in
from freezeout.wrappers import are_gathered_each_pass, gathered_forms, instances_of, regions

__all__ = ["Capture"]

_MOST_PLANS = 16
"""Signatures of inputs whose plans are kept; the one that was not used for longest goes."""


class Capture:
    """Let the frozen layers of a model run only where and when their values are needed.

    While the model's forward pass runs, what depends on inputs, constants and frozen layers alone
    is not computed but noted down. Code that learns gets real values when it asks for them, from
    `source` or by computing them then. Losses, gradients, buffers and random numbers are bit for
    bit those of the plain pass, if the source serves such bits.

    Passes are captured that could train: with gradients on, and inputs that need none. All others
    run as ever, and `plain` counts them by their reason. Nothing stays in the model between passes
    but two hooks, which copies of it do not have.

    Args:
        model: The model, with or without wrappers.
        layers: Its layers.
        depth: Length of the frozen prefix: layers 0 to depth - 1 are frozen already.
        source: Where values may come from; ``None`` computes all of them.

    Attributes:
        source: Where values may come from; it may be replaced between passes.
        captured: Number of captured passes.
        plain: Number of passes that were not captured, by the reason in words.
        last: The last captured pass.

    Raises:
        TypeError: If `depth` is not a whole number.
        ValueError: If `depth` is out of range.
    """

    def __init__(
        self, model: nn.Module, layers: Layers, depth: int, source: Source | None = None
    ) -> None:
        self.source = source
        self.captured = 0
        self.plain: Counter[str] = Counter()
        self.last: ForwardPass | None = None
        self._outer = model
        self._layers = layers
        self._generations = Generations()
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._constants: Constants | None = None
        self._stand_ins: StandIns | None = None
        self._refused: str | None = None
        self._told: set[str] = set()
        self._pass: ForwardPass | None = None
        self._frame: FrameType | None = None
        self._left: WeakSet[Memory] = WeakSet()
        self._dead: list[ForwardPass] = []  # PyTorch may put back what is taken off in a call
        self._nested = self._thread = 0
        self._begun = 0
        self._called = self._has_looked = False
        self._unfollow: list[Callable[[], None]] = []
        self.move(depth)
        root = layers.model
        before, after = (
            _Entrance(self._enter, grad=None, inputs=True),
            _Entrance(self._leave, grad=None, inputs=True),
        )
        self._handles = [
            root.register_forward_pre_hook(before, with_kwargs=True),
            root.register_forward_hook(after, prepend=True, with_kwargs=True, always_call=True),
        ]

    @classmethod
    def of(cls, freezer: Freezer, source: Source | None = None) -> Capture:
        """Capture the model of a freezer, and follow it when its boundary moves.

        Args:
            freezer: The freezer.
            source: Where values may come from.
        """
        capture = cls(freezer.layers.model, freezer.layers, freezer.depth, source)
        capture._unfollow.append(freezer.add_listener(capture._follow))
        return capture

    @property
    def depth(self) -> int:
        """Length of the frozen prefix that is captured."""
        return self._depth

    def move(self, depth: int) -> None:
        """Follow the boundary to another place, from the next pass on.

        Args:
            depth: Length of the frozen prefix, from 0 to the number of layers - 1.

        Raises:
            TypeError: If `depth` is not a whole number.
            ValueError: If `depth` is out of range.
        """
        hint = "It counts the frozen layers from the input; the last layer never freezes."
        check_whole("depth", depth, hint, most=len(self._layers) - 1)
        self._depth = depth
        self._forget()
        if depth and not self._called:  # compiled code calls no hooks
            self._look_for_compiler()
        self._called = False

    def close(self) -> None:
        """Take everything off the model, and follow no freezer any more."""
        self._drop_stale()
        for undo in self._unfollow:
            undo()
        for handle in self._handles:
            handle.remove()
        self._unfollow, self._handles = [], []
        self._forget()

    def _look_for_compiler(self) -> None:
        """Say so if the model is compiled as a whole; that takes a look at all objects."""
        if self._has_looked:
            return
        self._has_looked = True
        if _is_compiled_whole(self._outer, self._layers.model):
            self._say(
                "the model is compiled as a whole, and passes of compiled code are not captured: "
                "they run as ever. Compile its blocks instead (for block in model.blocks: "
                "block.compile())"
            )

    def _follow(self, event: FreezeEvent) -> None:
        self.move(event.index + event.frozen)

    def _forget(self) -> None:
        for memory in self._left:
            memory.settle()
        self._left.clear()
        self._plans.clear()
        self._constants = self._stand_ins = self.last = None

    # ---- a pass

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self._called, self._has_looked = True, False
        if self._pass is not None:
            if threading.get_ident() != self._thread:
                return None
            if _is_running(self._frame):
                self._nested += 1  # the model calls itself
                return None
            self._drop_stale()  # a pass that was interrupted
        if not self._depth or getattr(module, "_is_replica", False):
            return None
        while self._dead:
            take_off(self._dead.pop())
        self._begun += 1
        reason = self._reason(args, kwargs) or self._look()
        if reason is not None:
            self.plain[reason] += 1
            return None
        tensors: list[torch.Tensor] = []
        signature = self._signature(args, kwargs, tensors)
        plan = self._plan(signature, tensors)
        if plan.refused is not None:
            self._say(f"passes with these inputs are not captured any more: {plan.refused}")
            self.plain["refused"] += 1
            return None
        assert self._constants is not None
        assert self._stand_ins is not None
        forward = ForwardPass(plan, self._constants, tensors, self.source)
        given = _replaced((args, kwargs), [forward.input(i) for i in range(len(tensors))][::-1])
        self._pass = forward
        self._frame, self._thread = _frame_of_call(), threading.get_ident()
        self._stand_ins.put(forward)
        forward.begin(self._frame, self._drop_stale)
        return given

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward = self._pass
        if forward is None or threading.get_ident() != self._thread:
            return
        if self._nested:
            self._nested -= 1
            return
        self._release()
        self.captured += 1
        self.last = forward
        self._left.add(forward.memory)
        failed = output is None and sys.exc_info()[0] is not None
        forward.finish(output, module, failed=failed)

    def _release(self) -> None:
        self._pass = self._frame = None
        self._nested = 0
        if self._stand_ins is not None:
            self._stand_ins.take_away()

    def _drop_stale(self) -> None:
        """End a pass that an interrupt has left open."""
        forward = self._pass
        if forward is not None:
            self._release()
            forward.finish(None, self._layers.model, failed=True)
            self._dead.append(forward)

    def _reason(self, args: Any, kwargs: Any) -> str | None:
        """Return why this pass is not captured, as far as it shows before anything is looked up."""
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return "gradients are off"
        if any(isinstance(mode, ForwardPass) for mode in watching_now()):
            return "it lies within the captured pass of another model"
        if any(t.requires_grad for t in tensors_in([args, kwargs])):
            return "an input needs a gradient"
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return "it is run by torch.func"
        root = self._layers.model
        for hooks in (root._forward_pre_hooks, root._forward_hooks):
            for hook in hooks.values():
                if isinstance(hook, Hook) and not isinstance(hook, _Entrance):
                    return "it is checked, as the first after a freeze is"
        return None

    def _look(self) -> str | None:
        """Look the constants up, or look at them; return why the pass cannot be captured."""
        if self._constants is not None and self._stand_ins is not None:
            moved = self._constants.moved()
            for name in moved:
                self._generations.note(name, self._begun)
            if moved or self._stand_ins.have_changed():
                self._forget()
            if not self._generations.restless.isdisjoint(moved):
                names = ", ".join(sorted(self._generations.restless)[:3])
                self._say(
                    f"frozen values are written into again and again ({names}), so what depends on "
                    "them is computed in every pass. Leave frozen layers as they are"
                )
        if self._constants is None:
            root = self._layers.model
            forms = gathered_forms(root)
            self._layers.refresh(forms)
            parameters = [p for layer in self._layers[: self._depth] for _, p in layer.parameters]
            if are_gathered_each_pass(root, parameters):
                self._say(
                    "fully_shard gathers frozen layers in every pass, for which all processes must "
                    "run them. Their passes are not captured. Keep them gathered: "
                    "freezer.follow(keep_unsharded=True)"
                )
                return "frozen layers are gathered in every pass"
            constants = Constants(self._layers, self._depth, self._generations, forms)
            if constants.scattered:
                return "frozen layers are not gathered yet"
            self._constants = constants
            self._stand_ins = StandIns(self._layers, self._depth, constants)
        return None

    def _plan(self, signature: Any, tensors: Sequence[torch.Tensor]) -> Plan:
        plan = self._plans.get(signature)
        if plan is None:
            plan = self._plans[signature] = Plan()
            plan.add_inputs(tensors)
            if len(self._plans) > _MOST_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(signature)
        return plan

    def _signature(self, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
        assert self._stand_ins is not None
        inputs = _described((args, kwargs), tensors)
        devices = [getattr(mode, "device", None) for mode in watching_now()]  # the default one
        defaults = (torch.get_default_dtype(), *devices)
        return inputs, defaults, self._stand_ins.modes()

    def _say(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            warnings.warn(f"{message}.", FrozenPrefixWarning, stacklevel=2)


class _Entrance(Hook):
    """A hook by which a pass is entered or left."""


def _frame_of_call() -> FrameType:
    """Return the frame in which PyTorch calls the model."""
    return sys._getframe(3)  # this function, _enter, the hook, and there


def _is_running(frame: FrameType | None) -> bool:
    above: FrameType | None = sys._getframe(1)
    while above is not None and above is not frame:
        above = above.f_back
    return above is not None


def _is_input(value: Any) -> bool:
    """Return whether an argument is a tensor that a lazy one can stand for."""
    return (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and not value.is_quantized
        and not value.is_inference()
        and not value.is_nested
        and not value.is_meta
    )


def _described(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return what tells arguments of one signature from those of another; collect the tensors."""
    kind = type(value)
    if _is_input(value):
        tensors.append(value)
        return value.shape, value.stride(), value.dtype, value.device
    if kind in (tuple, list) or (isinstance(value, tuple) and hasattr(value, "_fields")):
        return kind, *[_described(item, tensors) for item in value]
    if kind is dict:
        return kind, *[(key, _described(item, tensors)) for key, item in value.items()]
    if kind in (int, bool, str, type(None)):
        return kind, value
    if kind is float:
        return kind, repr(value)
    return kind


def _replaced(value: Any, lazies: list[Any]) -> Any:
    """Return arguments with lazy tensors, the last of the list first, in place of inputs."""
    if _is_input(value):
        return lazies.pop()
    if type(value) in (tuple, list):
        return type(value)([_replaced(item, lazies) for item in value])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_replaced(item, lazies) for item in value])
    if type(value) is dict:
        return {key: _replaced(item, lazies) for key, item in value.items()}
    return value


def _is_compiled_whole(outer: nn.Module, root: nn.Module) -> bool:
    """Return whether the model runs inside one compiled region."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    around: list[nn.Module] = [] if compiler is None else instances_of(compiler.OptimizedModule)
    return any(r.module is root for whole in (outer, root, *around) for r in regions(whole))
