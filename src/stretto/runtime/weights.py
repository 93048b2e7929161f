"""Weights in the format of Hugging Face: ranged reads, a check before them, and streamed writes.

Nothing here holds more than what it is asked for: a box on reading, a tensor on writing.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from stretto.data import tokenizer as tokenizers
from stretto.errors import MachineError, ModelError, Problem
from stretto.huggingface import Source, sources, tensor_shapes, write_config
from stretto.layout import Box, intersect
from stretto.model import Dims, Model, Parameter

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
_SHOWN = 10
"""How many problems of one kind are listed."""


# Reading


def read_box(directory: Path, model: Model, parameter: Parameter, box: Box) -> Tensor:
    """Give a box of a parameter, reading no other bytes of the weights.

    Args:
        directory: Has ``model.safetensors``, or shards and their index.
        model: The model; `check_weights` said that the weights are its.
        parameter: Which of its parameters.
        box: Which part, in global coordinates; what lies beyond the parameter is padding.

    Returns:
        The values in the type in which they are stored; zero in the padding.

    Raises:
        ModelError: A tensor cannot be read.
    """
    files = _files(directory)
    shape = tuple(stop - start for start, stop in box)
    parts: list[tuple[tuple[slice, ...], Tensor]] = []
    for source in sources(model, parameter):
        held: Box = tuple((0, size) for size in model.shape(parameter))
        if source.pair >= 0:
            held = ((source.pair, source.pair + 1), *held[1:])
        inside = intersect(held, box)
        if inside is not None:
            at = tuple(
                slice(start - first, stop - first)
                for (start, stop), (first, _) in zip(inside, box, strict=True)
            )
            ranges = dict(zip(parameter.dims, inside, strict=True))
            part = _read(files, source, ranges, sizes=model.sizes)
            parts.append((at, _arrange(part, source, parameter, ranges)))
    dtypes = {part.dtype for _, part in parts} or {torch.float32}
    result = torch.zeros(shape, dtype=max(dtypes, key=lambda d: d.itemsize))
    for at, part in parts:
        result[at] = part
    return result


def _read(
    files: Mapping[str, Path],
    source: Source,
    ranges: Mapping[str, tuple[int, int]],
    *,
    sizes: Mapping[str, int],
) -> Tensor:
    """Give the part of a tensor within `ranges` of logical dimensions, in the tensor's own shape."""
    runs = [_runs(dims, ranges, sizes) for dims in source.axes]
    runs[-1] = [(start + source.offset, stop + source.offset) for start, stop in runs[-1]]
    name = _found(files, source.tensor)
    try:
        with safetensors.safe_open(files[name], framework="pt") as file:  # type: ignore[no-untyped-call]
            tensor = file.get_slice(name)
            rows = [
                torch.cat([tensor[tuple(slice(*run) for run in (*outer, last))] for last in runs[-1]], -1)
                for outer in itertools.product(*runs[:-1])
            ]
    except (KeyError, OSError, safetensors.SafetensorError) as error:
        rule = f"cannot be read from {directory_of(files, name)}: {error}"
        raise ModelError(Problem(source.tensor, rule, "fetch the weights again")) from error
    return torch.cat(rows)
