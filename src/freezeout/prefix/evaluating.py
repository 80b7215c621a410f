"""Values of nodes, computed when somebody needs them, and forgotten as soon as nobody does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from freezeout.errors import FreezeOutError
from freezeout.prefix.nodes import Call, Node, State
from freezeout.prefix.source import Source, as_described

__all__ = ["Values", "copied", "evaluate", "filled", "in_state", "state_now"]


def state_now(devices: Sequence[str]) -> State:
    """Return what decides, beside its arguments, how a call computes now.

    Args:
        devices: Types of the devices of the model and its inputs.

    Returns:
        Whether gradients are on (``None`` in inference mode), and each device with autocast.
    """
    grad: bool | None = torch.is_grad_enabled()
    if not grad and torch.is_inference_mode_enabled():
        grad = None
    if not torch.is_autocast_enabled(devices[0]) and len(devices) == 1:
        return (grad,)
    cast = [(d, torch.get_autocast_dtype(d)) for d in devices if torch.is_autocast_enabled(d)]
    return (grad, *cast)


@contextmanager
def in_state(state: State, devices: Sequence[str]) -> Iterator[None]:
    """Compute as in a state that `state_now` has noted."""
    grad, cast = state[0], dict(state[1:])
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(grad is None))
        stack.enter_context(torch.set_grad_enabled(bool(grad)))
        for device in devices:
            dtype = cast.get(device, torch.get_autocast_dtype(device))
            stack.enter_context(torch.autocast(device, dtype=dtype, enabled=device in cast))
        yield


def filled(template: Any, value: Callable[[Node], Any]) -> Any:
    """Return arguments with values in place of nodes."""
    kind = type(template)
    if kind is Node:
        return value(template)
    if kind is tuple:
        return tuple([filled(item, value) for item in template])
    if kind is list:
        return [filled(item, value) for item in template]
    if kind is dict:
        return {key: filled(item, value) for key, item in template.items()}
    if kind is slice:
        parts = (template.start, template.stop, template.step)
        return slice(*[filled(part, value) for part in parts])
    return template


def evaluate(
    call: Call, value: Callable[[Node], Any], devices: Sequence[str]
) -> list[torch.Tensor]:
    """Run a call for real.

    Args:
        call: What to run. One that changes its first argument gets a copy of it.
        value: Gives the value of each argument.
        devices: Types of the devices of the model and its inputs.

    Returns:
        The tensors that it gives, in the order of `Call.outputs`.
    """
    args, kwargs = filled(call.args, value), filled(call.kwargs, value)
    if call.in_place:
        args = (copied(args[0]), *args[1:])
    if call.state == state_now(devices):
        out = call.function(*args, **kwargs)
    else:
        with in_state(call.state, devices):
            out = call.function(*args, **kwargs)
    if call.in_place:
        return [args[0]]
    return list(_tensors(out))


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with the same strides."""
    copy = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return copy.copy_(tensor) if all(tensor.stride()) else tensor.clone()


def _tensors(out: Any) -> Iterator[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        yield out
    elif isinstance(out, (tuple, list)):
        for item in out:
            yield from _tensors(item)
    elif isinstance(out, dict):
        for item in out.values():
            yield from _tensors(item)


class Values:
    """The values of one pass.

    A value is kept with its version: if it was changed in place since, it is computed again.

    Args:
        inputs: The model's inputs.
        source: Asked for a value before it is computed.
        devices: Types of the devices of the model and its inputs.

    Attributes:
        computed: How many calls were run.
        most: How many values were held at once.
    """

    def __init__(
        self, inputs: Sequence[torch.Tensor], source: Source | None, devices: Sequence[str]
    ) -> None:
        self._inputs = dict(enumerate(inputs))
        self._versions = {index: t._version for index, t in self._inputs.items()}
        self._source = source
        self._devices = devices
        self._held: dict[Node, tuple[torch.Tensor, int]] = {}
        self._asked: set[Node] = set()
        self.computed = self.most = 0

    def __iter__(self) -> Iterator[Node]:
        return iter(self._held)

    def put(self, node: Node, value: torch.Tensor) -> None:
        """Keep a value."""
        self._held[node] = (value, value._version)
        self.most = max(self.most, len(self._held))

    def find(self, node: Node) -> torch.Tensor | None:
        """Return a value if it is known and nothing has changed it."""
        if node.call is None:
            if node.constant is not None:
                return node.constant
            value = self._inputs[node.index]
            if value._version != self._versions[node.index]:
                raise FreezeOutError(
                    f"{node.name} of the model was changed in place by code that learns, before a "
                    "frozen part that reads it had run. Clone it in the model before it is "
                    "changed, or do not capture this model."
                )
            return value
        found = self._held.get(node)
        if found is None:
            return None
        if found[0]._version != found[1]:
            del self._held[node]
            return None
        return found[0]

    def raw(self, node: Node) -> torch.Tensor | None:
        """Return a value even if it was changed in place since."""
        found = self._held.get(node)
        return None if found is None else found[0]

    def served(self, node: Node) -> torch.Tensor | None:
        """Ask the source, once."""
        if self._source is None or node in self._asked:
            return None
        self._asked.add(node)
        value = as_described(self._source.get(node), node)
        if value is not None:
            self.put(node, value)
        return value

    def of(self, node: Node, wanted: Callable[[], Iterable[Node]]) -> torch.Tensor:
        """Return the value of a node: known, served or computed.

        Args:
            node: The node.
            wanted: Returns the nodes that may be asked for later; all others are forgotten as soon
                as this one is there.
        """
        value = self.find(node)
        if value is None:
            value = self.served(node)
        if value is not None:
            return value
        order = self._order(node)
        uses = Counter(need for call in order for need in call.needs)
        keep = self._between(wanted(), node)
        for call in order:
            outputs = self._run(call)
            for output in call.outputs:
                result = outputs[output.index]
                if not output.describes(result):
                    raise FreezeOutError(
                        f"{output.name} gave a tensor of shape {tuple(result.shape)} and "
                        f"{result.dtype}, and of shape {tuple(output.shape)} and {output.dtype} "
                        "before. What frozen layers give must have a shape that follows from that "
                        "of the inputs; do not capture this model."
                    )
                if output in keep or uses[output]:
                    self.put(output, result)
            for need in call.needs:
                uses[need] -= 1
                if not uses[need] and need not in keep:
                    self._held.pop(need, None)
        return self._held[node][0]

    def keep_only(self, nodes: Iterable[Node]) -> None:
        """Forget all values but these."""
        keep = set(nodes)
        for node in [node for node in self._held if node not in keep]:
            del self._held[node]

    def leave(self, inputs: Iterable[int]) -> None:
        """Forget all values, and hold copies of these inputs, in case something is left to do."""
        self._held.clear()
        self._source = None
        self._inputs = {index: self._inputs[index].clone() for index in inputs}
        self._versions = {index: t._version for index, t in self._inputs.items()}

    def _run(self, call: Call) -> list[torch.Tensor]:
        """Run a call; that of a module must still draw no random numbers."""
        before = torch.get_rng_state() if call.is_module else None
        outputs = evaluate(call, self._value, self._devices)
        self.computed += 1
        if before is not None and not torch.equal(before, torch.get_rng_state()):
            call.is_unsteady = True
            raise FreezeOutError(
                f"{call.name} drew random numbers and did not before, so it ran at another time "
                "than in the plain pass. Run the step again: from now on it runs in its place."
            )
        return outputs

    def _value(self, node: Node) -> torch.Tensor:
        found = self.find(node)
        if found is None:  # a call in between has changed it in place, against its record
            raise FreezeOutError(
                f"{node.name} was changed in place by a frozen part that did not do so before. "
                "Do not capture this model."
            )
        return found

    def _order(self, node: Node) -> list[Call]:
        """Return the calls that must run for a node, in order; without recursion."""
        order: list[Call] = []
        done: set[Call] = set()
        waiting = [node]
        while waiting:
            last = waiting[-1]
            call = last.call
            if call is None or call in done or self.find(last) is not None:
                waiting.pop()
                continue
            if last is not node and self.served(last) is not None:
                waiting.pop()
                continue
            missing = [n for n in call.needs if n.call not in done and self.find(n) is None]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            order.append(call)
            done.add(call)
        return order

    def _between(self, wanted: Iterable[Node], now: Node) -> set[Node]:
        """Return nodes that may be asked for, and what they will then be computed from.

        What the node is computed from that is asked for now does not count.
        """
        found = {now}
        waiting = list(wanted)
        while waiting:
            node = waiting.pop()
            if node in found:
                continue
            found.add(node)
            if node.call is not None and node not in self._held:
                waiting += node.call.needs
        return found
