"""What torch has one of per process, kept apart for each lane: random state, threads, default dtype."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch import Tensor


class ProcessState:
    """One lane's random state and default dtype; threads and determinism each lane sets for itself.

    Args:
        random_state: of each of torch's generators, by its name.
    """

    def __init__(self, device: torch.device, seed: int, threads: int, deterministic: bool) -> None:
        self.device, self.threads, self.deterministic = device, threads, deterministic
        self.random_state = seeded_random_state(device, seed)
        self.default_dtype = torch.get_default_dtype()

    @contextmanager
    def own(self) -> Iterator[None]:
        """Inside, torch's state is this one; outside, its generators and its dtype are as they were again."""
        set_process(self.threads, self.device, self.deterministic)
        generators = default_generators(self.device)
        outer = {name: generator.get_state() for name, generator in generators.items()}
        for name, generator in generators.items():
            generator.set_state(self.random_state[name])
        outer_dtype = torch.get_default_dtype()
        torch.set_default_dtype(self.default_dtype)
        try:
            yield
        finally:
            self.default_dtype = torch.get_default_dtype()  # a model may set it
            torch.set_default_dtype(outer_dtype)
            for name, generator in generators.items():
                self.random_state[name] = generator.get_state()
                generator.set_state(outer[name])


@contextmanager
def on_stream(stream: "torch.cuda.Stream | None") -> Iterator[None]:
    """Inside, a CUDA device works on this stream beside others; `loop.collect` waits for it."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield


def mixed(*numbers: int) -> int:
    """One well-mixed 64-bit seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def default_generators(device: torch.device) -> dict[str, torch.Generator]:
    """Torch's global generators that a lane on this device draws from."""
    generators = {"cpu": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        generators["cuda"] = torch.cuda.default_generators[device.index]
    elif device.type == "mps":
        generators["mps"] = torch.mps._get_default_mps_generator()
    return generators


def seeded_random_state(device: torch.device, seed: int) -> dict[str, Tensor]:
    """The state of each of those generators after seeding it."""
    return {
        name: torch.Generator(generator.device).manual_seed(seed).get_state()
        for name, generator in default_generators(device).items()
    }


def set_process(threads: int, device: torch.device, deterministic: bool) -> None:
    """Set what torch only knows per process. The CPU is deterministic anyway."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        if deterministic:  # cuBLAS reads this once, before its first call
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = not deterministic


@cache
def default_threads() -> int:
    """Torch's own choice, as it was before the first lane of this process set another."""
    return torch.get_num_threads()
