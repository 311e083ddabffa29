"""Values made of tensors: dataclasses, mappings and tuples that hold some, taken as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def map_tensors(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """Returns `value` with every tensor in it, however deep, replaced by the function's result."""
    result: Any = value
    if isinstance(value, Tensor):
        result = function(value)
    elif isinstance(value, Mapping):
        result = {name: map_tensors(part, function) for name, part in value.items()}
    elif isinstance(value, tuple):
        result = tuple(map_tensors(part, function) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        result = replace(value, **{name: map_tensors(part, function) for name, part in parts.items()})
    return result


def to_device(value: Value, device: torch.device) -> Value:
    """Returns `value` with its tensors on `device`; copies to an accelerator do not make the host wait for it."""
    if device.type != "cuda":
        return map_tensors(value, lambda tensor: tensor.to(device))
    return map_tensors(
        value, lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory().to(device, non_blocking=True)
    )
