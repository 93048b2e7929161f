"""``stretto export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from stretto.cli.arguments import Parser
from stretto.cli.keys import sort
from stretto.cli.rundir import RunDirectory
from stretto.errors import InputError, Problem
from stretto.plan import DType

_ABOUT = """\
Writes the model of a run as a directory in Hugging Face format, which transformers loads:
config.json, model.safetensors (in shards of 5 GB), tokenizer.json.

At the end of a run train does this by itself, into RUN/model.
"""

_EXAMPLES = """\
examples:
  stretto export runs/2026-05-01-120000-gpt2 my-gpt2
  stretto export runs/2026-05-01-120000-gpt2 my-gpt2 --checkpoint step-00000400 --dtype bfloat16
"""


def run(arguments: Sequence[str]) -> int:
    """Write a run's model."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    sort(keys, problems, kinds=())
    for name, path in (("RUN", options.run), ("DIR", options.directory)):
        if path is None:
            problems.append(Problem(name, "is missing", f"see {parser.prog} --help"))
    if options.run is not None and not RunDirectory(options.run).is_one:
        rule = "is no run: it has no recipe.toml"
        problems.append(Problem(str(options.run), rule, "name a directory that train has made"))
    target = options.directory
    if target is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        problems.append(Problem(str(target), "exists already", "name a new directory"))
    if problems:
        raise InputError(problems)

    from stretto.cli.pretrained import export

    name = export(
        RunDirectory(options.run), target, checkpoint=options.checkpoint, dtype=options.dtype
    )
    print(f"the model of {name} is in {target}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "export",
        usage="RUN DIR [--checkpoint NAME] [--dtype TYPE]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="a run")
    add("directory", nargs="?", type=Path, metavar="DIR", help="where to write; a new directory")
    add("--checkpoint", metavar="NAME", help="one of RUN/checkpoints (default: the newest)")
    add(
        "--dtype",
        choices=get_args(DType),
        metavar="TYPE",
        help=f"of the weights: {', '.join(get_args(DType))} (default: that of the run)",
    )
    return parser
