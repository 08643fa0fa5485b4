"""Training on several processes: the model inside fairseq's wrappers, and what the processes share."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.models import BaseFairseqModel, distributed_fairseq_model
from omegaconf import DictConfig, ListConfig
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mla_fairseq.errors import user_errors
from mla_fairseq.models.length import LengthRule

# The first process sends a checkpoint that it has loaded to the others, by torch.save and torch.load. By then fairseq
# has turned the options into omegaconf's containers and the tensors into placeholders. None of these types runs code,
# whatever a file gives it.
_CONTAINERS = [DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata, distributed_utils._TensorPlaceholder]
torch.serialization.add_safe_globals([*_CONTAINERS, Any, collections.defaultdict, dict, list, int])


def unwrapped(model: nn.Module) -> BaseFairseqModel:
    """Return the model inside fairseq's wrappers for several processes; a model without a wrapper is returned as is."""
    inner: Any = model
    while not isinstance(inner, BaseFairseqModel):  # a proxy around LegacyDistributedDataParallel or torch's class
        inner = inner.module
    return inner


def check_devices() -> None:
    """Let fairseq report a world size without devices, or without what connects the processes, in one line."""
    infer = distributed_utils.infer_init_method

    def infer_or_end(*args: Any, **kwargs: Any) -> None:
        with user_errors("decrease --distributed-world-size, or start all processes: ", (AssertionError,)):
            infer(*args, **kwargs)

    distributed_utils.infer_init_method = infer_or_end


def distribute_on_cpus() -> None:
    """Let fairseq wrap a model on a CPU by torch's ``DistributedDataParallel``, for which it always names a GPU."""

    def wrap(module: nn.Module, device_ids: Any, output_device: Any, **options: Any) -> DistributedDataParallel:
        if next(module.parameters()).device.type == "cpu":
            device_ids = output_device = None
        return DistributedDataParallel(module, device_ids=device_ids, output_device=output_device, **options)

    vars(distributed_fairseq_model)["DistributedDataParallel"] = wrap


def place() -> tuple[int, int]:
    """Return the rank of this process, from 0, and the number of processes."""
    group = torch.distributed
    return (group.get_rank(), group.get_world_size()) if group.is_available() and group.is_initialized() else (0, 1)


@torch.no_grad()
def share_statistics(model: nn.Module) -> None:
    """Set the statistics that each process measures in training to their mean over all processes.

    They are the counts of a length rule and the running averages of batch norms. Every process calls this after each
    update, so that all have the same model to save and to validate. Other buffers never differ.
    """
    _, count = place()
    statistics = list(_statistics(model)) if count > 1 else []
    if not statistics:
        return
    mean = torch.cat([x.double().flatten() for x in statistics])  # one message; float64 keeps the counts exact
    distributed_utils.all_reduce(mean, distributed_utils.get_data_parallel_group())
    mean /= count
    for x, part in zip(statistics, mean.split([x.numel() for x in statistics]), strict=True):
        x.copy_(part.view_as(x))


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, LengthRule):
            yield module.tokens_and_states
        elif isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            yield from (module.running_mean, module.running_var)
