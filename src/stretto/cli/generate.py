"""``stretto generate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from stretto.cli.arguments import Parser
from stretto.cli.keys import sort
from stretto.cli.models import model_of
from stretto.cli.rundir import RunDirectory
from stretto.cli.say import attempt
from stretto.errors import InputError, ModelError, Problem

_ABOUT = """\
Lets a model go on with a text, and prints what it writes as it comes.

RUN is a run, of which the newest checkpoint is used, or a directory in Hugging
Face format. The same seed writes the same text.
"""

_EXAMPLES = """\
examples:
  stretto generate runs/2026-05-01-120000-stretto-1m --prompt "And the king said"
  stretto generate path/to/smollm2 --prompt "The capital of France is" --temperature 0 --tokens 20
  echo "In the beginning" | stretto generate runs/… --prompt -
"""


def run(arguments: Sequence[str]) -> int:
    """Print a text and how the model goes on."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    sort(keys, problems, kinds=())
    problems += _problems(options.model)
    if options.prompt is None:
        problems.append(Problem("--prompt", "is missing", 'write --prompt "some text"'))
    for name, wrong, remedy in (
        ("tokens", options.tokens < 1, "use 1 or more"),
        ("temperature", not options.temperature >= 0, "use 0 or more"),
        ("top-p", not 0 < options.top_p <= 1, "use more than 0, at most 1"),
    ):
        if wrong:
            value = getattr(options, name.replace("-", "_"))
            problems.append(Problem(f"--{name}", f"is {value}", remedy))
    if problems:
        raise InputError(problems)
    prompt = sys.stdin.read().rstrip("\n") if options.prompt == "-" else options.prompt

    from stretto.cli.pretrained import load
    from stretto.cli.samples import printable
    from stretto.runtime.generate import generate, text_of

    loaded = load(options.model)
    tokens = generate(
        loaded.model,
        loaded.parameters,
        loaded.tokenizer.encode(prompt),
        tokens=options.tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        stop={loaded.tokenizer.end_of_text},
    )
    print(prompt, end="", flush=True)
    for text in text_of(tokens, loaded.tokenizer.decode):
        print(printable(text), end="", flush=True)
    print()
    return 0


def _problems(path: Path | None) -> list[Problem]:
    """Say what is wrong with where the model is, before torch is imported."""
    if path is None:
        return [Problem("RUN", "is missing", "name a run, or a directory in Hugging Face format")]
    if RunDirectory(path).is_one:
        return []
    if (path / "config.json").is_file():
        problems: list[Problem] = []
        model = attempt(lambda: model_of(str(path)), problems)
        return [*problems, *(model.unsupported if model else ())]
    rule = "is neither a run nor a directory with a config.json"
    return list(ModelError(Problem(str(path), rule, "name one")).problems)


def _parser() -> Parser:
    parser = Parser(
        "generate",
        usage="RUN --prompt TEXT [--tokens N] [--temperature X] [--top-p X] [--seed N]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("model", nargs="?", type=Path, metavar="RUN", help="a run, or a Hugging Face directory")
    add("--prompt", metavar="TEXT", help="what to go on with; - reads it from standard input")
    add("--tokens", type=int, default=128, metavar="N", help="the most to write (default: 128)")
    add(
        "--temperature",
        type=float,
        default=0.8,
        metavar="X",
        help="0 takes the likeliest token each time, 1 draws as the model has it (default: 0.8)",
    )
    add(
        "--top-p",
        type=float,
        default=0.95,
        metavar="X",
        help="draw from the likeliest tokens that are together this probable (default: 0.95)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: 0)")
    return parser
