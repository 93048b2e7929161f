"""The directory of a run: what is in it, and how it is read and written.

plan.toml         the plan, resolved; the last one, if the run went on under another
recipe.toml       recipe, settings of the run and where its text is
cluster.toml      where it runs, as its steps are foretold
config.json       the model, in Hugging Face format; tokenizer.json beside it
environment.json  step, plan, versions, machine and command line of every start
metrics.jsonl     what there was to say after every step; TensorBoard's events.… beside it
log.txt           what was printed
timeline/         when each rank did what, in the steps that were recorded
checkpoints/      to go on from
model/            at the end, the model in Hugging Face format
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from stretto.checkpoint.commit import find, open_checkpoint
from stretto.cli.keys import RECIPE, RUN, Settings, read
from stretto.cli.models import called
from stretto.cli.plans import read_plan
from stretto.cli.say import attempt
from stretto.cluster import Cluster, dumps, local
from stretto.errors import CheckpointError, InputError, MachineError, Problem
from stretto.huggingface import write_config
from stretto.model import Model
from stretto.page.standing import process
from stretto.plan import Plan
from stretto.recipe import Recipe

_PACKAGES = ("stretto", "torch", "numpy", "safetensors", "tokenizers", "rich", "tensorboardX")
_VARIABLES = ("NCCL_", "GLOO_", "TORCH_", "OMP_", "MKL_", "CUDA_", "SLURM_", "RANK", "WORLD_SIZE",
              "LOCAL_", "MASTER_")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """What decides a run, as its directory keeps it.

    Attributes:
        model: What is trained.
        plan: How.
        recipe: Optimizer, learning rates and length.
        settings: What else the run does.
        data: Text, or a directory with prepared tokens.
        tokenizer: The tokenizer that was named; None for one of the run's own.
        weights: Where its weights came from; None for fresh ones.
    """

    model: Model
    plan: Plan
    recipe: Recipe
    settings: Settings
    data: tuple[Path, ...]
    tokenizer: Path | None = None
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run on disk.

    Attributes:
        path: Its directory.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The directory of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def cluster(self) -> Path:
        """The cluster by which its steps are foretold."""
        return self.path / "cluster.toml"

    @property
    def trace(self) -> Path:
        """Its recorded steps for Perfetto, once somebody asked for them."""
        return self.path / "trace.json"

    @property
    def model(self) -> Path:
        """The directory of its model in Hugging Face format, once there is one."""
        return self.path / "model"

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer."""
        return self.path / "tokenizer.json"

    @property
    def metrics(self) -> Path:
        """What there was to say after every step."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """The picture of its losses, once it has ended."""
        return self.path / "loss.svg"

    @property
    def log(self) -> Path:
        """What was printed."""
        return self.path / "log.txt"

    @property
    def starts(self) -> Path:
        """What there is to know of every start."""
        return self.path / "environment.json"

    @property
    def is_one(self) -> bool:
        """Whether there is a run."""
        return (self.path / "recipe.toml").is_file()

    def read(self) -> Start:
        """Give what decided the run.

        Raises:
            InputError: It is no run, or what is wrong with it.
        """
        if not self.is_one:
            rule = "is no run: it has no recipe.toml"
            raise InputError(Problem(str(self.path), rule, "name a directory that train has made"))
        problems: list[Problem] = []
        model = attempt(self._model, problems)
        plan = attempt(lambda: read_plan(self.path), problems)
        tree = attempt(self._recipe, problems)
        if model is None or plan is None or tree is None:
            raise InputError(problems)
        recipe, settings, text = tree
        data = tuple(Path(p) for p in text["data"])
        named = {k: Path(text[k]) for k in ("tokenizer", "weights") if k in text}
        return Start(model, plan, recipe, settings, data, **named)

    def _model(self) -> Model:
        """Give the model, called what it was and not what the directory is."""
        return called(self.path / "config.json")

    def _recipe(self) -> tuple[Recipe, Settings, Mapping[str, Any]]:
        path = self.path / "recipe.toml"
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
            recipe = read(tree["recipe"], Recipe, RECIPE, where="recipe")
            settings = read(tree["run"], Settings, RUN, where="run")
            text = tree["text"]
            if not all(isinstance(p, str) for p in text["data"]):
                raise ValueError("text.data is no list of paths")
        except (OSError, ValueError, KeyError, TypeError) as error:
            rule = f"cannot be read: {error}"
            raise InputError(Problem(str(path), rule, "mend it, or begin another run")) from None
        return recipe, settings, text

    def write(self, start: Start, *, command: list[str], cluster: Cluster | None = None) -> None:
        """Keep what decides the run, and where and how it is started.

        Args:
            start: What decides it.
            command: How it is started.
            cluster: By which its steps are foretold; None to leave that as it is.

        Raises:
            MachineError: The disk refuses.
        """
        text: dict[str, Any] = {"data": [str(p.resolve()) for p in start.data]}
        for name in ("tokenizer", "weights"):
            path = getattr(start, name)
            if path is not None:
                text[name] = str(path.resolve())
        tree = {"recipe": asdict(start.recipe), "run": asdict(start.settings), "text": text}
        with refusing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            named = write_config(start.model) | {"_name_or_path": start.model.name}
            _write_json(self.path / "config.json", named)
            (self.path / "plan.toml").write_text(
                start.plan.to_toml(model="config.json"), encoding="utf-8"
            )
            (self.path / "recipe.toml").write_text(tomli_w.dumps(tree), encoding="utf-8")
            if cluster is not None:
                self.cluster.write_text(dumps(cluster), encoding="utf-8")
            plan, where = start.plan, cluster and cluster.name
            begun = {"step": self._done(), "ranks": plan.mesh.size, "cluster": where}
            begun |= {"plan": plan.to_toml(), **environment(command)}
            _write_json(self.starts, [*_list(self.starts), begun])

    def went_on(self, step: int) -> None:
        """Keep after which step the newest start went on, if its checkpoint was not the newest.

        Args:
            step: Steps done before it.

        Raises:
            MachineError: The disk refuses.
        """
        *before, last = _list(self.starts) or [{}]
        if last.get("step", step) != step:
            with refusing(self.path):
                _write_json(self.starts, [*before, last | {"step": step}])

    def keep_tokenizer(self, path: Path) -> None:
        """Copy a tokenizer, and what says which token ends a text.

        Raises:
            MachineError: The disk refuses.
        """
        with refusing(self.path):
            for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
                source = (path if path.is_dir() else path.parent) / name
                if source.is_file():
                    shutil.copyfile(source, self.path / name)

    def newest(self) -> Path | None:
        """Give the newest checkpoint, if there is one."""
        try:
            return find(self.checkpoints).path
        except CheckpointError:
            return None

    def _done(self) -> int:
        """Give the steps that the newest checkpoint has; 0 without one."""
        newest = self.newest()
        return open_checkpoint(newest, model=None).step if newest else 0


def new_name(model: Model, now: datetime.datetime) -> str:
    """Give the name of a run that begins now: ``2026-05-01-1200-gpt2``."""
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in model.name) or "model"
    return f"{now:%Y-%m-%d-%H%M%S}-{name}"


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Say what the machine refuses.

    Raises:
        MachineError: The disk is full, or `path` may not be written.
    """
    try:
        yield
    except OSError as error:
        where = str(error.filename or path)
        if Path(where).name.startswith(f".{path.name}."):  # that it grew in, until it is whole
            where = str(path)
        rule = f"cannot be written: {error.strerror or error}"
        raise MachineError(
            Problem(where, rule, "make room or give leave, or name another")
        ) from None


def _list(path: Path) -> list[Any]:
    """Give the list in a file; an empty one if there is none."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, list) else []
    return []


def environment(command: list[str]) -> dict[str, Any]:
    """Give versions, machine, variables and command line, as JSON."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    here = local()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "directory": os.getcwd(),
        "process": process(),
        "versions": versions,
        "machine": {
            "name": here.name,
            "system": platform.platform(),
            "processor": here.device.name,
            "cores": here.devices,
            "memory_bytes": int(here.device.memory_bytes * here.devices),
        },
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)},
        "interpreter": sys.executable,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
