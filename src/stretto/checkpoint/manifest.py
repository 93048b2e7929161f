"""The manifest of a checkpoint: what it holds, as boxes in global coordinates, and in which files.

Rank and topology are not in the format: a tensor has a name, a dtype, a shape without padding, and
boxes that tile it. The JSON is the fields of these dataclasses, read strictly: every unknown or
missing key and every wrong type is listed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from stretto.checkpoint.strict import dump, parse, read
from stretto.errors import CheckpointError, Problem
from stretto.layout import Box
from stretto.model import Model
from stretto.plan import DTYPE_BYTES

VERSION = 1
"""The version of the format that is written here, and the only one that is read."""

STATES = ("", "#first", "#second")
"""What follows a parameter's name: nothing for its master weight, and Adam's two moments."""

_FILE_NAME = re.compile(r"rank-\d{5,}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredBox:
    """A part of a tensor, and where it is.

    Attributes:
        box: Which part: (start, stop) in each dimension of the whole tensor.
        file: The file that holds it.
        key: Its name in the file.
    """

    box: Box
    file: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and its parts.

    Attributes:
        dtype: ``float64``, ``float32``, ``bfloat16`` or ``int64``.
        shape: Its shape, without padding.
        boxes: Its parts.
    """

    dtype: str
    shape: tuple[int, ...]
    boxes: tuple[StoredBox, ...]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a checkpoint.

    Attributes:
        bytes: Its size.
        sha256: Of its bytes, in hexadecimal.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint holds; or the part of it that one rank wrote.

    Attributes:
        version: Of the format.
        step: The optimizer steps behind it.
        serial: Counts the commits of a directory: of two checkpoints the newer has the greater.
        model: The model that the tensors are of.
        extra: What else a run needs to go on, as JSON: seed, fingerprint of the tokens, plan, …
        tensors: By name.
        files: By name.
    """

    version: int
    step: int
    serial: int
    model: Model
    extra: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    files: Mapping[str, StoredFile]

    def __post_init__(self) -> None:
        """Check that its parts fit together; that boxes tile is for `check` to say.

        Raises:
            CheckpointError: All that is wrong.
        """
        problems = tuple(chain(_value_problems(self), _box_problems(self), _file_problems(self)))
        if problems:
            raise CheckpointError(problems)

    def to_json(self) -> str:
        """Give the manifest as the JSON that `from_json` reads."""
        return dump(self) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Read a manifest.

        Raises:
            CheckpointError: All problems: no JSON, another version, unknown or missing keys, wrong
                types, values that do not fit together.
        """
        tree = parse(text, where="manifest")
        version = tree.get("version") if isinstance(tree, dict) else None
        if type(version) is int and version != VERSION:
            rule = f"is {version}, but this Stretto reads {VERSION}"
            remedy = "use the Stretto that wrote it"
            raise CheckpointError(Problem("manifest.version", rule, remedy))
        return read(Manifest, tree, where="manifest")


def model_to_dict(model: Model) -> dict[str, Any]:
    """Give a model as the dictionary, fit for JSON, that `model_from_dict` reads."""
    tree: dict[str, Any] = parse(dump(model), where="model")
    return tree


def model_from_dict(tree: Any) -> Model:
    """Read a model, strictly.

    Raises:
        CheckpointError: All problems: unknown or missing keys, wrong types, impossible values.
    """
    return read(Model, tree, where="model")


def tensor_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Give the shape of every tensor, by name, that a checkpoint of `model` holds."""
    return {p.name + state: model.shape(p) for p in model.parameters for state in STATES}


def merge(parts: Sequence[Manifest], *, serial: int) -> Manifest:
    """Give the manifest of a checkpoint from the parts that its ranks wrote.

    Args:
        parts: One for each rank, at least one.
        serial: Of the checkpoint.

    Raises:
        CheckpointError: Ranks that disagree about the step, the model or a tensor; a file or key
            that two ranks claim.
    """
    first, problems = parts[0], []
    tensors: dict[str, StoredTensor] = {}
    files: dict[str, StoredFile] = {}
    for rank, part in enumerate(parts):
        if (part.step, part.model) != (first.step, first.model):
            problems.append(_damaged(f"rank {rank}", "saves another step or model than rank 0"))
        for name in part.files.keys() & files.keys():
            problems.append(_damaged(f"rank {rank}", f"wrote {name}, and so did another rank"))
        files |= part.files
        for name, tensor in part.tensors.items():
            known = tensors.setdefault(name, StoredTensor(tensor.dtype, tensor.shape, ()))
            if (known.dtype, known.shape) != (tensor.dtype, tensor.shape):
                rule = f"{tensor.dtype} {tensor.shape} on rank {rank}, but {known.dtype} "
                problems.append(_damaged(name, rule + f"{known.shape} on a lower one"))
            tensors[name] = StoredTensor(known.dtype, known.shape, known.boxes + tensor.boxes)
    if problems:
        raise CheckpointError(problems)
    return Manifest(VERSION, first.step, serial, first.model, first.extra, tensors, files)


# ── checking ─────────────────────────────────────────────────────────────────────────────────────


def check(
    manifest: Manifest, model: Model | None = None, *, limit: int = 10
) -> tuple[Problem, ...]:
    """Give what keeps a checkpoint from being one of `model`.

    Args:
        manifest: Of the checkpoint.
        model: What it should be of; None for the model that it names itself. What the two are
            called does not matter.
        limit: How many problems to list; one more says how many there are besides.

    Returns:
        Fields of the model that differ; tensors that are missing, unexpected or of another shape;
        tensors whose boxes do not tile them exactly.
    """
    model = model or manifest.model
    found = [
        *_model_problems(manifest.model, model),
        *_tensor_problems(manifest, model),
        *_tiling_problems(manifest),
    ]
    if len(found) > limit:
        rest = Problem("checkpoint", f"{len(found) - limit} more mismatches", "mend these first")
        found[limit:] = [rest]
    return tuple(found)


def _model_problems(saved: Model, wanted: Model) -> Iterator[Problem]:
    for field in fields(Model):
        ours, theirs = getattr(wanted, field.name), getattr(saved, field.name)
        if ours != theirs and field.name != "name":
            rule = f"is {theirs!r} in the checkpoint, but {ours!r} here"
            yield _differs(f"model.{field.name}", rule)


def _tensor_problems(manifest: Manifest, model: Model) -> Iterator[Problem]:
    if model.layers > len(manifest.tensors):  # as many blocks are not even listed
        rule = f"{len(manifest.tensors)} tensors are too few for {model.layers} layers"
        yield _differs("tensors", rule)
        return
    wanted = tensor_shapes(model)
    for name, shape in wanted.items():
        tensor = manifest.tensors.get(name)
        if tensor is None:
            yield _differs(name, f"a tensor of shape {shape} is missing")
        elif tensor.shape != shape:
            yield _differs(name, f"has shape {tensor.shape}, but the model's is {shape}")
    for name in manifest.tensors:
        if name not in wanted:
            yield _differs(name, "is not a tensor of the model")


def _tiling_problems(manifest: Manifest) -> Iterator[Problem]:
    tiling = cache(_tiling)  # layers tile their tensors alike
    for name, tensor in manifest.tensors.items():
        rule = tiling(tensor.shape, tuple(stored.box for stored in tensor.boxes))
        if rule:
            yield _damaged(name, rule)


def _tiling(shape: tuple[int, ...], boxes: tuple[Box, ...]) -> str:
    """Say how `boxes`, each inside `shape`, fail to tile it; nothing if they do."""
    bounds = np.array(boxes, np.int64).reshape(len(boxes), len(shape), 2)
    for i in range(len(boxes)):
        lower, upper = bounds[i, :, 0], bounds[i, :, 1]
        rest = bounds[i + 1 :]
        meets = ((rest[:, :, 0] < upper) & (rest[:, :, 1] > lower)).all(axis=1)
        if meets.any():
            other = boxes[i + 1 + int(meets.argmax())]
            return f"its boxes {boxes[i]} and {other} overlap"
    covered = sum(math.prod(stop - start for start, stop in box) for box in boxes)
    size = math.prod(shape)
    return "" if covered == size else f"its boxes leave a gap: {covered} of {size} elements"


def _value_problems(manifest: Manifest) -> Iterator[Problem]:
    for field, least in (("step", 0), ("serial", 0)):
        if getattr(manifest, field) < least:
            yield _damaged(f"manifest.{field}", f"is {getattr(manifest, field)}, below {least}")
    for name, tensor in manifest.tensors.items():
        if tensor.dtype not in DTYPE_BYTES:
            yield _damaged(name, f"is of dtype {tensor.dtype!r}, not one of {sorted(DTYPE_BYTES)}")


def _box_problems(manifest: Manifest) -> Iterator[Problem]:
    for name, tensor in manifest.tensors.items():
        for stored in tensor.boxes:
            fits = len(stored.box) == len(tensor.shape) and all(
                0 <= start < stop <= size
                for (start, stop), size in zip(stored.box, tensor.shape, strict=True)
            )
            if not fits:
                yield _damaged(name, f"box {stored.box} is not inside its shape {tensor.shape}")
            if stored.file not in manifest.files:
                yield _damaged(name, f"a box is in {stored.file!r}, which is not listed")


def _file_problems(manifest: Manifest) -> Iterator[Problem]:
    for name, file in manifest.files.items():
        if not _FILE_NAME.fullmatch(name):
            yield _damaged(name, "is not the name of a file of a checkpoint")
        if file.bytes < 0 or not _SHA256.fullmatch(file.sha256):
            yield _damaged(name, f"{file.bytes} bytes with SHA-256 {file.sha256!r} cannot be")
    places = Counter(
        (stored.file, stored.key) for tensor in manifest.tensors.values() for stored in tensor.boxes
    )
    for (place, key), count in places.items():
        if count > 1:
            yield _damaged(place, f"{count} boxes have the key {key!r}")


def _differs(field: str, rule: str) -> Problem:
    return Problem(field, rule, "use the model of the checkpoint, or another checkpoint")


def _damaged(field: str, rule: str) -> Problem:
    return Problem(field, rule, "use another checkpoint")
