"""``stretto prepare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stretto.cli.arguments import Parser
from stretto.cli.keys import Settings, sort
from stretto.cli.models import model_of
from stretto.cli.say import attempt
from stretto.cli.texts import CACHE, Telling, text_problems, tokenizer_problems, tokens_of
from stretto.data.tokens import unigram_loss
from stretto.errors import InputError, Problem
from stretto.units import show_count

_ABOUT = """\
Turns text into tokens ahead of training: the same that train does first, on one machine, without
ranks that wait. Train finds them again by the bytes of the text and the settings, or by name:
--data takes the directory that is printed.

MODEL says how many tokens there are to be (default: the shipped small model); vocab= does too.
"""

_EXAMPLES = """\
keys:
  vocab= valid_fraction= field=

examples:
  stretto prepare --data texts/ vocab=32000
  stretto prepare llama-3-8b --data texts/ more.jsonl.gz --tokenizer llama3/ --out /scratch/tokens
"""


def run(arguments: Sequence[str]) -> int:
    """Prepare text, and say where it is."""
    parser = _parser()
    options, pairs, problems = parser.read(arguments)
    data, names = tuple(Path(name) for name in options.data or ()), options.words
    problems += [Problem(n, "a second model", "paths stand after --data") for n in names[1:]]
    keys = sort(pairs, problems, kinds=("run",))
    settings = replace(Settings(), **keys.run)
    model = attempt(lambda: model_of(next(iter(names), None)), problems)
    if model is not None and settings.vocab:
        model = replace(model, vocab=settings.vocab)
    if not data:
        problems.append(Problem("--data", "is missing", "name files or directories of text"))
    else:
        problems += text_problems(data, field=settings.field)
    problems += tokenizer_problems(options.tokenizer, model)
    if problems or model is None:
        raise InputError(problems)
    telling = Telling()
    text = tokens_of(
        data,
        options.out,
        model=model,
        tokenizer=options.tokenizer,
        settings=settings,
        progress=telling,
    )
    telling.done()
    for note in text.notes:
        print(f"note: {note}")
    trained_on, held_out = show_count(text.train.size), show_count(text.valid.size)
    baseline = unigram_loss(text.train, text.valid)
    print(
        f"{trained_on} tokens to train on, {held_out} held out; vocabulary {text.train.vocab_size}"
    )
    print(f"a unigram model's loss is {baseline:.3f} nats per token")
    print(text.tokenizer_path.parent)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "prepare",
        usage="[MODEL] --data PATH … [--out DIR] [--tokenizer FILE] [key=value …]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="MODEL, key=value", help="the model, and keys: see below")
    add(
        "--data",
        nargs="+",
        action="extend",
        metavar="PATH",
        help=".txt, .jsonl (both also .gz, .xz) and .parquet files, and directories of them",
    )
    add(
        "--out",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"where tokens are kept (default: {CACHE})",
    )
    add(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="a tokenizer.json (default: one is trained on the text)",
    )
    return parser
