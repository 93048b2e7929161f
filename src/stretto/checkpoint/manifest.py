"""The manifest of a checkpoint: what it holds, as boxes in global coordinates, and in which files.

Rank and topology are not in the format: a tensor has a name, a dtype, a shape without padding, and
boxes that tile it. The JSON is the fields of these dataclasses, read strictly: every unknown or
missing key and every wrong type is listed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from itertools import chain
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from stretto.errors import CheckpointError, ModelError, Problem
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
        return json.dumps(self, default=_fields, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read a manifest.

        Raises:
            CheckpointError: All problems: no JSON, another version, unknown or missing keys, wrong
                types, values that do not fit together.
        """
        try:
            tree = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(_damaged("manifest", f"is not JSON: {error}")) from None
        version = tree.get("version") if isinstance(tree, dict) else None
        if type(version) is int and version != VERSION:
            rule = f"is {version}, but this Stretto reads {VERSION}"
            remedy = "use the Stretto that wrote it"
            raise CheckpointError(Problem("manifest.version", rule, remedy))
        problems: list[Problem] = []
        manifest = _reader(Manifest)(tree, "manifest", problems)
        if problems:
            raise CheckpointError(problems)
        assert isinstance(manifest, Manifest)
        return manifest


def model_to_dict(model: Model) -> dict[str, Any]:
    """Give a model as the dictionary, fit for JSON, that `model_from_dict` reads."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(model), allow_nan=False))
    return tree


def model_from_dict(tree: Any) -> Model:
    """Read a model, strictly.

    Raises:
        CheckpointError: All problems: unknown or missing keys, wrong types, impossible values.
    """
    problems: list[Problem] = []
    model = _reader(Model)(tree, "model", problems)
    if problems:
        raise CheckpointError(problems)
    assert isinstance(model, Model)
    return model


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


# ── reading ──────────────────────────────────────────────────────────────────────────────────────

_Reader = Callable[[Any, str, list[Problem]], Any]
"""Gives the value of a JSON tree that stands at a place, and adds what is wrong to a list."""


def _reader(kind: Any) -> _Reader:
    """Give the strict reader of values of a type; it is made once and used for many values."""
    if is_dataclass(kind):
        return _object_reader(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value, where, problems: value
    if origin is Literal:
        return _literal_reader(arguments)
    if origin is UnionType:  # of something and None
        inner = _reader(arguments[0])
        return lambda value, where, problems: (
            None if value is None else inner(value, where, problems)
        )
    if origin is tuple:
        return _tuple_reader(arguments)
    if origin is Mapping:
        return _mapping_reader(arguments[1])
    return _scalar_reader(kind)


def _object_reader(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}

    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is not dict:
            problems.append(_damaged(where, f"is {_short(value)}, not an object"))
            return None
        before = len(problems)
        if value.keys() != readers.keys():
            for name in sorted(value.keys() - readers.keys()):
                problems.append(_damaged(f"{where}.{name}", "there is no such key"))
            for name in sorted(readers.keys() - value.keys()):
                problems.append(_damaged(f"{where}.{name}", "is missing"))
        parts = {
            name: reader(value[name], f"{where}.{name}", problems)
            for name, reader in readers.items()
            if name in value
        }
        if len(problems) > before:
            return None
        try:
            return kind(**parts)
        except (CheckpointError, ModelError) as error:
            problems += error.problems
            return None

    return read


def _literal_reader(choices: tuple[Any, ...]) -> _Reader:
    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if value not in choices:
            problems.append(_damaged(where, f"is {_short(value)}, not one of {list(choices)}"))
        return value

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> _Reader:
    item = _reader(kinds[0])  # all items are of one type
    length = -1 if kinds[1] is ... else len(kinds)

    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is not list or length not in (-1, len(value)):
            size = "" if length < 0 else f" of {length}"
            problems.append(_damaged(where, f"is {_short(value)}, not a list{size}"))
            return ()
        return tuple([item(each, where, problems) for each in value])

    return read


def _mapping_reader(kind: Any) -> _Reader:
    item = _reader(kind)

    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is not dict:
            problems.append(_damaged(where, f"is {_short(value)}, not an object"))
            return {}
        return {name: item(each, f"{where}.{name}", problems) for name, each in value.items()}

    return read


def _scalar_reader(kind: type) -> _Reader:
    def read(value: Any, where: str, problems: list[Problem]) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        problems.append(_damaged(where, f"is {_short(value)}, not of type {kind.__name__}"))
        return value

    return read


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
