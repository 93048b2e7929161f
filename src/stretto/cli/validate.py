"""``stretto validate``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stretto.cli.arguments import Parser
from stretto.cli.say import table
from stretto.errors import InputError, Problem
from stretto.fidelity.measured import Unit
from stretto.fidelity.predict import Prediction, predict
from stretto.fidelity.rows import sift
from stretto.fidelity.score import Errors, Score, by_source, score, tree
from stretto.report.quantities import counted

_WIDEST = 100
_NAME = 29  # a longer name of a row has a line of its own
_UNITS: Mapping[Unit, str] = {
    "tokens/s": "tokens/s", "TFLOP/s": "TFLOP/s", "tokens/s of a layer": "in layer",
}  # fmt: skip

_ABOUT = """\
Predicts published measurements of training, and says how far off it is.

ROWS is a file of JSON rows, one a line, with the keys of fidelity/README.md. Each row is predicted
by what it states of its model, hardware, plan and software; what it does not state has a default,
which is listed. error is predicted over measured throughput of a device, less 1. The unit is that
of the row; "in layer" counts the tokens/s of one layer, forward and backward. The last columns say
whether it ran or was out of memory, and whether it is predicted to fit.
"""

_EXAMPLES = """\
examples:
  stretto validate fidelity/rows.jsonl --worst 20
  stretto validate fidelity/rows.jsonl --source torchtitan
  stretto validate fidelity/rows.jsonl --json > errors.json
"""


def run(arguments: Sequence[str]) -> int:
    """Print what is predicted of each row, of each source and of all."""
    parser = _parser()
    options, keys, problems = parser.read(arguments)
    problems += [
        Problem(f"{name}={text}", "is no key of this command", f"see {parser.prog} --help")
        for name, text in keys
    ]
    if len(options.rows) != 1:
        rule = f"takes one file, not {len(options.rows)}"
        problems.append(Problem("ROWS", rule, "name a file of JSON rows"))
    if options.worst is not None and options.worst < 1:
        problems.append(Problem("--worst", f"is {options.worst}, below 1", "use 1 or more"))
    if problems:
        raise InputError(problems)
    rows, rejected = sift(Path(options.rows[0]))
    if not rows:
        raise InputError(rejected)
    known = sorted({row.source for row in rows})
    if options.source is not None and options.source not in known:
        near = parser.suggest(options.source, known)
        rule, remedy = "there is no such source", f"{near}choose from {', '.join(known)}"
        raise InputError(Problem(f"--source {options.source}", rule, remedy))
    predictions = predict([r for r in rows if options.source in (None, r.source)])
    if options.json:
        print(json.dumps(tree(predictions, rejected), allow_nan=False))
        return 0
    shown = _worst(predictions, options.worst) if options.worst else predictions
    told = [line for text in _summary(predictions) for line in _wrapped(text, indent=13)]
    print("\n".join([*_rows(shown), "", *_sources(predictions), "", *told]))
    if rejected:
        count = counted(len(rejected), "thing is", "things are")
        print(f"\n{count} wrong with rows that were left out:")
        print("\n".join(table(rejected)))
    return 0


def _worst(predictions: Sequence[Prediction], count: int) -> list[Prediction]:
    return sorted(predictions, key=lambda p: -abs(p.error or 0))[:count]


def _rows(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Give a line for each row, and what it assumes."""
    width = min(_NAME, max(len(p.row.id) for p in predictions))
    yield (
        f"{'row':{width}}  {'predicted':>9}  {'measured':>9}  {'unit':8}  {'error':>7}  "
        f"{'peak GB':>7}  {'measured':>8}  ran  fits"
    )
    for p in predictions:
        row = p.row
        measured = row.measured.value if row.status == "ok" else None
        peak = "–" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f}"
        if len(row.id) > width:
            yield row.id
        yield (
            f"{row.id if len(row.id) <= width else '':{width}}  {_number(p.throughput):>9}  "
            f"{_number(measured):>9}  {_UNITS[row.measured.unit]:8}  {_percent(p.error):>7}  "
            f"{p.peak_bytes / 1e9:>7.1f}  {peak:>8}  {row.status:3}  {'yes' if p.fits else 'no'}"
        )
        if row.assumed:
            yield from _wrapped(f"    assumed: {'; '.join(row.assumed)}", indent=6)


def _wrapped(text: str, *, indent: int) -> list[str]:
    """Give a text in lines, all but the first indented."""
    return textwrap.wrap(
        text, _WIDEST, subsequent_indent=" " * indent, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _sources(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Give a line for each source."""
    scores = by_source(predictions)
    width = max(len("source"), *map(len, scores))
    yield (
        f"{'source':{width}}  {'n':>5}  {'bias':>7}  {'median':>7}  {'p90':>7}  {'rank':>5}  "
        f"{'picks':>7}  {'memory':>7}"
    )
    for name, one in scores.items():
        e, ranking = one.throughput, one.ranking
        rank = "–" if ranking.spearman is None else f"{ranking.spearman:.2f}"
        picks = f"{ranking.right}/{ranking.groups}" if ranking.groups else "–"
        yield (
            f"{name:{width}}  {e.n:>5}  {_percent(e.bias):>7}  {_share(e.median):>7}  "
            f"{_share(e.p90):>7}  {rank:>5}  {picks:>7}  {_share(one.peak.median):>7}"
        )


def _summary(predictions: Sequence[Prediction]) -> Iterator[str]:
    """Give the whole in words."""
    one: Score = score(predictions)
    yield f"throughput   {_errors(one.throughput)}"
    yield f"             {_errors(one.weighted)}, sources weighing the same"
    if one.peak.n:
        yield f"peak memory  {_errors(one.peak)}"
    fitting, ranking = one.fitting, one.ranking
    yield (
        f"out of it    {fitting.found} of {fitting.oom} found; "
        f"{fitting.refused} of {fitting.ran:,} that ran are predicted not to"
    )
    if ranking.groups:
        rank = "" if ranking.spearman is None else f"; rank correlation {ranking.spearman:.2f}"
        yield (
            f"ranking      in {ranking.right} of {ranking.groups} groups that differ only in plan "
            f"the pick is the best or within 2 %, {ranking.safe} with memory predicted too; "
            f"mean loss {ranking.loss:.1%}{rank}"
        )


def _errors(e: Errors) -> str:
    return (
        f"{counted(e.n, 'row')}: median error {_share(e.median)}, 90th percentile {_share(e.p90)}, "
        f"bias {_percent(e.bias)}"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _parser() -> Parser:
    parser = Parser(
        "validate",
        usage="ROWS.jsonl [--source KEY] [--worst N] [--json]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROWS.jsonl", help="published measurements, see above")
    add("--source", metavar="KEY", help="rows with this source_key only")
    add("--worst", type=int, metavar="N", help="list only the N rows with the largest errors")
    add("--json", action="store_true", help="print one object: rows, sources, summary, rejected")
    return parser
