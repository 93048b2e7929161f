"""Weights in the format of Hugging Face: ranged reads, a check before them, and streamed writes.

Nothing here holds more than what it is asked for: a box on reading, a tensor on writing.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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

_DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
_SHOWN = 10  # problems of one kind that are listed
_FETCH = "fetch the weights again"


# Reading


def read_box(directory: Path, model: Model, parameter: Parameter, box: Box) -> Tensor:
    """Give a box of a parameter, reading no other bytes of the weights.

    Args:
        directory: Has ``model.safetensors``, or shards and their index.
        model: The model; `check_weights` says whether the weights are its.
        parameter: Which of its parameters.
        box: Which part, in global coordinates; what lies beyond the parameter is padding.

    Returns:
        The values in the type in which they are stored; zero in the padding.

    Raises:
        ModelError: A tensor cannot be read.
    """
    files = _files(directory)
    parts: list[tuple[tuple[slice, ...], Tensor]] = []
    for source in sources(model, parameter):
        held: Box = tuple((0, size) for size in model.shape(parameter))
        if source.pair >= 0:
            held = ((source.pair, source.pair + 1), *held[1:])
        inside = intersect(held, box)
        if inside is not None:
            begins = [start for start, _ in box]
            at = tuple(slice(a - o, b - o) for (a, b), o in zip(inside, begins, strict=True))
            ranges = dict(zip(parameter.dims, inside, strict=True))
            tensor = _read(files, source, ranges, sizes=model.sizes)
            lengths = [b - a for d in itertools.chain(*source.axes) for a, b in [ranges[d]]]
            part = tensor.reshape(lengths).permute(_order(_stored(source), _own(parameter)))
            parts.append((at, part if source.pair < 0 else part[None]))
    dtypes = {part.dtype for _, part in parts} or {torch.float32}
    dtype = functools.reduce(torch.promote_types, dtypes)
    result = torch.zeros([stop - start for start, stop in box], dtype=dtype)
    for at, part in parts:
        result[at] = part
    return result


def read_weights(directory: Path, model: Model, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Give every parameter whole, by name: for one device that holds the model.

    Raises:
        ModelError: The weights are not those of the model, or cannot be read.
    """
    check_weights(directory, model)
    boxes = {p: tuple((0, size) for size in model.shape(p)) for p in model.parameters}
    return {p.name: read_box(directory, model, p, box).to(dtype) for p, box in boxes.items()}


def _read(
    files: Mapping[str, Path],
    source: Source,
    ranges: Mapping[str, tuple[int, int]],
    *,
    sizes: Mapping[str, int],
) -> Tensor:
    """Give what a tensor holds within `ranges` of logical dimensions, in its own dimensions."""
    *outer, last = (_runs(dims, ranges, sizes) for dims in source.axes)
    last = [(start + source.offset, stop + source.offset) for start, stop in last]
    name = _found(files, source.tensor)
    if name is None:
        raise ModelError(Problem(source.tensor, "is missing", _FETCH))
    try:
        with safetensors.safe_open(files[name], framework="pt") as file:
            stored = file.get_slice(name)
            rows = [
                torch.cat([stored[tuple(slice(*run) for run in (*runs, end))] for end in last], -1)
                for runs in itertools.product(*outer)
            ]
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(Problem(str(files[name]), f"cannot be read: {error}", _FETCH)) from error
    return torch.cat(rows)


def _runs(
    dims: Dims, ranges: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]
) -> list[tuple[int, int]]:
    """Give where `ranges` of logical dimensions lie in the one that flattens them."""
    runs = [(0, 1)]
    for dim in dims:
        size, (start, stop) = sizes[dim], ranges[dim]
        if (start, stop) == (0, size):
            runs = [(a * size, b * size) for a, b in runs]
        else:
            runs = [(i * size + start, i * size + stop) for a, b in runs for i in range(a, b)]
    return runs


def _stored(source: Source) -> Dims:
    return tuple(itertools.chain(*source.axes))


def _own(parameter: Parameter) -> Dims:
    return tuple(d for d in parameter.dims if d != "pair")


def _order(given: Dims, wanted: Dims) -> list[int]:
    return [given.index(d) for d in wanted]


def _found(names: Iterable[str], tensor: str) -> str | None:
    """Give the name under which a tensor is stored: some leave out that of the base model."""
    bare = tensor.removeprefix("model.").removeprefix("transformer.")
    return next((name for name in (tensor, bare) if name in names), None)


def _files(directory: Path) -> dict[str, Path]:
    """Give the file of every tensor.

    Raises:
        ModelError: There is no file, or none that can be read.
    """
    index = directory / INDEX
    if not index.exists():
        return dict.fromkeys(_header(directory / SINGLE), directory / SINGLE)
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): directory / file for name, file in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule = f"is no index of weights: {error!r:.80}"
        raise ModelError(Problem(str(index), rule, _FETCH)) from error


def _header(path: Path) -> dict[str, dict[str, Any]]:
    """Give what the header of a safetensors file says of its tensors; check its length.

    Raises:
        ModelError: There is no such file, or it is not whole.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                rule = f"is truncated: {size} bytes, of which the header alone needs {8 + length}"
                raise ModelError(Problem(str(path), rule, _FETCH))
            header: dict[str, dict[str, Any]] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        wanted = 8 + length + max((int(t["data_offsets"][1]) for t in header.values()), default=0)
        if size != wanted:
            what = "truncated" if size < wanted else "too long"
            rule = f"is {what}: {size} bytes where its header says {wanted}"
            raise ModelError(Problem(str(path), rule, _FETCH))
        return {name: {"dtype": t["dtype"], "shape": t["shape"]} for name, t in header.items()}
    except OSError as error:
        remedy = f"name a directory with {SINGLE}, or with shards and {INDEX}"
        rule = f"cannot be read: {error.strerror}"
        raise ModelError(Problem(str(path), rule, remedy)) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        rule = f"is no safetensors file: {error!r:.80}"
        raise ModelError(Problem(str(path), rule, _FETCH)) from error


def check_weights(directory: Path, model: Model) -> None:
    """Check that the weights in a directory are there, whole, and of the model.

    Reads headers only.

    Raises:
        ModelError: Files that are missing or damaged; tensors that are missing, unexpected, or of
            another shape or type. The first of each kind.
    """
    files, headers = _files(directory), dict[str, dict[str, Any]]()
    problems: list[Problem] = []
    for path in sorted(set(files.values())):
        try:
            headers |= _header(path)
        except ModelError as error:
            problems += error.problems
    if problems:
        raise ModelError(problems)
    shapes = tensor_shapes(model)
    found = {tensor: _found(headers, tensor) for tensor in shapes}
    unexpected = [n for n in headers if n not in found.values() and not _is_idle(n, model)]
    for kind in (
        [
            Problem(t, "is missing from the weights", f"use weights of {model.name}")
            for t, name in found.items()
            if name is None
        ],
        [
            Problem(n, f"is no tensor of {model.name}", "use the config.json of these weights")
            for n in unexpected
        ],
        [p for t, name in found.items() if name for p in _misfits(name, headers[name], shapes[t])],
    ):
        problems += kind[:_SHOWN]
        if len(kind) > _SHOWN:
            more = len(kind) - _SHOWN
            problems.append(Problem("…", f"and {more} more like the last", "see above"))
    if problems:
        raise ModelError(problems)


def _is_idle(name: str, model: Model) -> bool:
    """Tell whether a tensor is no weight but a table that older files carry, or a tied head."""
    tables = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
    return name.endswith(tables) or (model.tied and name == "lm_head.weight")


def _misfits(name: str, stored: Mapping[str, Any], shape: tuple[int, ...]) -> Iterator[Problem]:
    if tuple(stored["shape"]) != shape:
        rule = f"has shape {tuple(stored['shape'])}, but config.json gives it {shape}"
        yield Problem(name, rule, "use the config.json of these weights")
    if stored["dtype"] not in _DTYPES.values():
        rule = f"is stored as {stored['dtype']}"
        yield Problem(name, rule, f"convert it to one of {', '.join(_DTYPES.values())}")


# Writing


def write_pretrained(
    directory: Path,
    model: Model,
    read: Callable[[Parameter, Box], Tensor],
    *,
    dtype: torch.dtype,
    shard_bytes: int = 5 * 10**9,
    tokenizer: Path | None = None,
) -> None:
    """Write a directory that ``AutoModelForCausalLM.from_pretrained`` loads, whole or not at all.

    Args:
        directory: Where; must not exist, or be empty.
        model: The model.
        read: Gives the values of a box of a parameter; called in the order of the tensors.
        dtype: The type in which weights are stored.
        shard_bytes: The largest file of weights in bytes; a larger tensor has one of its own.
        tokenizer: A ``tokenizer.json``, or a directory with one, to write beside the weights.

    Raises:
        ModelError: The directory has something in it, or the family of the model cannot express it.
        DataError: The tokenizer cannot be read.
        MachineError: The disk refuses.
    """
    config = write_config(model) | {"dtype": str(dtype).removeprefix("torch.")}
    ends = {} if tokenizer is None else {"eos_token_id": tokenizers.load(tokenizer).end_of_text}
    with _whole(directory) as partial:
        _write_json(partial / "config.json", config | ends)
        _write_json(partial / "generation_config.json", {"_from_model_config": True} | ends)
        if tokenizer is not None:
            _copy_tokenizer(tokenizer, partial)
        shards = _shards(model, itemsize=dtype.itemsize, shard_bytes=shard_bytes)
        for file, shapes in shards.items():
            with (partial / file).open("wb") as stream:
                _write_shard(stream, shapes, model=model, read=read, dtype=dtype)
        if len(shards) > 1:
            weight_map = {name: file for file, shapes in shards.items() for name in shapes}
            total = sum(math.prod(s) for s in tensor_shapes(model).values()) * dtype.itemsize
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            _write_json(partial / INDEX, index)


@contextmanager
def _whole(directory: Path) -> Iterator[Path]:
    """Give a directory to fill, which becomes `directory` once all in it is on disk."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(Problem(str(directory), "exists already", "name a new directory"))
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.replace(directory)
        _sync(directory.parent)
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
        raise MachineError(Problem(str(directory), rule, "make room, or name another")) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_tokenizer(source: Path, directory: Path) -> None:
    """Write a tokenizer, and take over what lies beside it rather than make it anew."""
    tokenizers.load(source).save(directory)
    beside = source if source.is_dir() else source.parent
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (beside / name).exists():
            shutil.copyfile(beside / name, directory / name)


def _shards(
    model: Model, *, itemsize: int, shard_bytes: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Give the files of weights, and the names and shapes of the tensors in each."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    room = shard_bytes
    for name, shape in tensor_shapes(model).items():
        size = math.prod(shape) * itemsize
        if size > room and files[-1]:
            files.append({})
            room = shard_bytes
        files[-1][name] = shape
        room -= size
    if len(files) == 1:
        return {SINGLE: files[0]}
    count = len(files)
    return {f"model-{i:05}-of-{count:05}.safetensors": f for i, f in enumerate(files, start=1)}


def _write_shard(
    stream: BinaryIO,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    model: Model,
    read: Callable[[Parameter, Box], Tensor],
    dtype: torch.dtype,
) -> None:
    """Write a safetensors file: the length of the header, the header, and one tensor at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    parts: dict[str, list[tuple[Parameter, Source]]] = {}
    for parameter in model.parameters:
        for source in sources(model, parameter):
            parts.setdefault(source.tensor, []).append((parameter, source))
    for name, shape in shapes.items():
        tensor = torch.empty(shape, dtype=dtype)
        for parameter, source in parts[name]:
            _fill(tensor, parameter, source, model=model, read=read)
        stream.write(tensor.flatten().view(torch.uint8).numpy().data)


def _fill(
    tensor: Tensor,
    parameter: Parameter,
    source: Source,
    *,
    model: Model,
    read: Callable[[Parameter, Box], Tensor],
) -> None:
    """Write a parameter, or one of its pair, where it lies in a tensor."""
    box: Box = tuple((0, size) for size in model.shape(parameter))
    if source.pair >= 0:
        box = ((source.pair, source.pair + 1), *box[1:])
    values = read(parameter, box)
    assert values.shape == tuple(b - a for a, b in box), f"{parameter.name}: {values.shape}, {box}"
    values = values if source.pair < 0 else values[0]
    part = values.permute(_order(_own(parameter), _stored(source)))
    part = part.reshape(source.shape(model.sizes))
    tensor[..., source.offset : source.offset + part.shape[-1]] = part
