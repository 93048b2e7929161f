"""A trained model: from a run or from a directory in Hugging Face format, and into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stretto.checkpoint import io as checkpoints
from stretto.checkpoint.manifest import Manifest
from stretto.cli.models import model_of
from stretto.cli.rundir import RunDirectory
from stretto.data import tokenizer as tokenizers
from stretto.data.tokenizer import Tokenizer
from stretto.errors import CheckpointError, Problem
from stretto.layout import Box
from stretto.model import Model, Parameter
from stretto.runtime.rank import DTYPES
from stretto.runtime.weights import read_weights, write_pretrained


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that can write.

    Attributes:
        model: The model.
        parameters: Its parameters by name, whole, on one device.
        tokenizer: Text to tokens and back.
    """

    model: Model
    parameters: Mapping[str, Tensor]
    tokenizer: Tokenizer


def load(path: Path) -> Loaded:
    """Give the model of a run or a directory: of a run that of its newest checkpoint.

    Without a checkpoint it is the one that the run wrote at its end.

    Args:
        path: A run, or a directory in Hugging Face format.

    Raises:
        InputError: What is missing, damaged or does not fit.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = RunDirectory(path)
    saved = run.is_one and any(run.checkpoints.glob("step-*"))
    home = run.model if run.is_one and not saved else path
    tokenizer = tokenizers.load(home)
    if saved:
        checkpoint, manifest = _checkpoint(run, None)
        model, read = manifest.model, _reader(checkpoint, manifest)
        weights = {p.name: read(p, _whole(model, p)).float() for p in model.parameters}
    else:
        model = model_of(str(home))
        weights = read_weights(home, model, dtype=torch.float32)
    return Loaded(model, {name: w.to(device) for name, w in weights.items()}, tokenizer)


def export(
    run: RunDirectory, directory: Path, *, checkpoint: str | None = None, dtype: str | None = None
) -> str:
    """Write the model of a run in Hugging Face format, a tensor at a time.

    Args:
        run: The run.
        directory: Where; must not exist, or be empty.
        checkpoint: The name of one of its checkpoints; None for the newest.
        dtype: In which the weights are stored; None for the one in which the run computed.

    Returns:
        The name of the checkpoint.

    Raises:
        InputError: There is no such checkpoint, or something is in `directory`.
        MachineError: The disk refuses.
    """
    path, manifest = _checkpoint(run, checkpoint)
    problems = checkpoints.verify_files(path, manifest)
    if problems:
        raise CheckpointError(problems)
    write_pretrained(
        directory,
        manifest.model,
        _reader(path, manifest),
        dtype=DTYPES[dtype or run.read().plan.numerics.dtype],
        tokenizer=run.path,
    )
    return path.name


def _checkpoint(run: RunDirectory, name: str | None) -> tuple[Path, Manifest]:
    path = checkpoints.find(run.checkpoints).path if name is None else run.checkpoints / name
    if not path.is_dir():
        found = sorted(p.name for p in run.checkpoints.glob("step-*") if p.is_dir())
        remedy = f"choose from {', '.join(found)}" if found else "train it first"
        raise CheckpointError(Problem(str(path), "there is no such checkpoint", remedy))
    return path, checkpoints.open_checkpoint(path, model=None)


def _reader(path: Path, manifest: Manifest) -> Callable[[Parameter, Box], Tensor]:
    def read(parameter: Parameter, box: Box) -> Tensor:
        dtype = DTYPES[manifest.tensors[parameter.name].dtype]
        return checkpoints.load(path, manifest, parameter.name, box, dtype=dtype, device="cpu")

    return read


def _whole(model: Model, parameter: Parameter) -> Box:
    return tuple((0, size) for size in model.shape(parameter))
