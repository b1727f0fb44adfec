"""Lets torchtitan run on CPU ranks over gloo; does nothing where there is an accelerator.

torchtitan falls back to "cuda" where torch reports no accelerator, FSDP2 asks gloo for a reduction that it
does not have, and DTensor's random initialisation is only faithful on CUDA: on a CPU mesh every rank would
fill its own shard with the same numbers; and the CPU has no histogram of integers, which routers need.
`enable_cpu()` fixes the first and the last before torchtitan is imported, `for_cpu()` the other two where a
model is parallelised.
"""

import functools
import os
import types
from collections.abc import Callable
from typing import Any

import torch
import torch._utils as torch_utils
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

RANDOM_FILLS = (
    torch.ops.aten.normal_.default,
    torch.ops.aten.uniform_.default,
    torch.ops.aten.bernoulli_.float,
)


def has_accelerator() -> bool:
    """Whether torch sees a GPU (or another accelerator)."""
    return torch_utils._get_available_device_type() is not None


def enable_cpu() -> None:
    """Make torchtitan see a "cpu" device. Must run before the first import of torchtitan."""
    if has_accelerator():
        return
    original = torch_utils._get_available_device_type, torch_utils._get_device_module
    cpu = _cpu_device_module()
    torch_utils._get_available_device_type = lambda: "cpu"
    torch_utils._get_device_module = lambda device_type: cpu
    try:
        import torchtitan.tools.utils  # noqa: F401  binds the two functions' answers at import
    finally:
        torch_utils._get_available_device_type, torch_utils._get_device_module = original
    torch.histc = _histc_of_integers(torch.histc)


def for_cpu(parallelize: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    """A torchtitan `parallelize_fn` whose model trains, and starts from the same weights, on CPU ranks."""
    if has_accelerator():
        return parallelize

    @functools.wraps(parallelize)
    def wrapped(model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        model = parallelize(model, *args, **kwargs)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        _hand_on_contiguous(model)
        init_weights: Callable[..., None] = model.init_weights  # pyright: ignore

        def init_whole_weights(*args: Any, **kwargs: Any) -> None:
            with _WholeRandomTensors():
                init_weights(*args, **kwargs)

        model.init_weights = init_whole_weights  # pyright: ignore
        return model

    return wrapped


def _hand_on_contiguous(model: torch.nn.Module) -> None:
    """Make what a pipeline stage hands on contiguous, in both directions: gloo sends nothing else, and stages
    of torchtitan 0.3 with tensor parallelism have other tensors at their ends."""

    def before(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        for value in args:
            if isinstance(value, torch.Tensor) and value.requires_grad:
                value.register_hook(torch.Tensor.contiguous)

    def after(module: torch.nn.Module, args: Any, output: Any) -> Any:
        return output.contiguous() if isinstance(output, torch.Tensor) else output

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)


def _histc_of_integers(histc: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """torch.histc that also counts integers, as on CUDA: routers of experts ask for it."""

    @functools.wraps(histc)
    def counting(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if input.is_floating_point():
            return histc(input, *args, **kwargs)
        return histc(input.float(), *args, **kwargs).to(input.dtype)

    return counting


class _WholeRandomTensors(TorchDispatchMode):
    """Fills a DTensor by drawing the whole tensor on every rank and keeping the local part.

    So the initial weights depend on the seed alone, not on how they are sharded.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        target = args[0] if args else None
        if func in RANDOM_FILLS and isinstance(target, DTensor):
            whole = torch.empty(target.shape, dtype=target.dtype, device=target.device)
            func(whole, *args[1:], **(kwargs or {}))
            local = distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
            target.to_local().copy_(local.to_local())
            return target
        return func(*args, **(kwargs or {}))


def _cpu_device_module() -> types.ModuleType:
    """What torchtitan asks of `torch.cuda`, answered for the CPU; the rest falls through to `torch.cpu`."""
    module = types.ModuleType("titan_aioli.hosts.titan.cpu_device")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    answers = {
        "set_device": lambda device: None,
        "current_device": lambda: 0,  # an int: goes into barrier(device_ids=[...])
        "get_device_name": lambda device=None: "CPU",
        "get_device_properties": lambda device=None: types.SimpleNamespace(total_memory=memory),
        "memory_stats": lambda device=None: dict.fromkeys(
            ("active_bytes.all.peak", "reserved_bytes.all.peak", "num_alloc_retries", "num_ooms"), 0
        ),
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
        "__getattr__": lambda name: getattr(torch.cpu, name),
    }
    module.__dict__.update(answers)
    return module
