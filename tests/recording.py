"""What a CUDA graph does, for a machine without CUDA: operations recorded once, repeated without Python."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairsweep.training.capture import CapturedSteps
from fairsweep.training.process import default_generators

WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Recording(TorchDispatchMode):
    """A lane's step, recorded, with all state as it was before.

    `replay` does the same operations on the same memory. What Python decided when the step was recorded, as a
    learning rate or a count of its own, stays as it was then.

    Raises:
        RuntimeError: an operation of the step brings values to the host, which no graph can hold.
    """

    def __init__(self, steps: CapturedSteps) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor | None]]] = []
        lane = steps.lane
        generators = [*default_generators(lane.device).values(), lane.augment_generator]
        states = [generator.get_state() for generator in generators]
        optimizer = [value for state in lane.optimizer.state.values() for value in state.values()]
        tensors = [*lane.model.state_dict().values(), lane.tally.correct, steps.losses, steps.position]
        tensors += [value for value in optimizer if isinstance(value, Tensor)]
        before = [tensor.clone() for tensor in tensors]
        with self:
            steps.step()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITS:
            raise RuntimeError(f"{func} waits for a value")
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {memory(leaf) for leaf in tree_leaves((args, kwargs))}
        made = [leaf if memory(leaf) not in given else None for leaf in tree_leaves(result)]
        self.operations.append((func, args, kwargs, made))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, made in self.operations:
            for goal, value in zip(made, tree_leaves(func(*args, **kwargs)), strict=True):
                if goal is not None:
                    goal.copy_(value)


def memory(leaf: Any) -> int | None:
    """Where a tensor's values lie; None for what is no tensor."""
    return leaf.untyped_storage().data_ptr() if isinstance(leaf, Tensor) else None
