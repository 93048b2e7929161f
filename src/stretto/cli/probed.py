"""What `stretto probe` found, in tables, in TOML and in JSON."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stretto.cluster import Sample, dumps
from stretto.units import show_bytes

if TYPE_CHECKING:
    from stretto.cluster import Fit, Residual
    from stretto.runtime.measure_links import Matrix
    from stretto.runtime.survey import Survey

_WIDEST = 16  # nodes of which each link has a cell
_SLOW = 1.15
_RATES = (("TFLOP/s", 1e12), ("GFLOP/s", 1e9))
_TIMES = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


def in_words(sample: Sample) -> str:
    """Give what is measured in a few words."""
    match sample.kind:
        case "matrix":
            return f"{sample.precision} product {_shape(sample)}"
        case "memory":
            return f"copy of {show_bytes(sample.size_bytes / 2)}"
        case "send" if not sample.size_bytes:
            return f"each link alone, devices {sample.stride} apart"
        case _:
            what = sample.kind.replace("_", "-")
            return f"{what} of {show_bytes(sample.size_bytes)} over {_group(sample)}"


def report(survey: Survey, fit: Fit) -> Iterator[str]:
    """Give all that was found, in lines."""
    hosts = survey.ranks // survey.per_node
    yield (
        f"{survey.ranks} ranks on {hosts} host{'s' * (hosts > 1)}, {survey.backend}, each on "
        f"{survey.device.name}; measured in {survey.took_s:.0f} s"
    )
    samples = [one.sample for one in survey.measured]
    yield from _matrices([s for s in samples if s.kind == "matrix"])
    yield from _memory([s for s in samples if s.kind == "memory"])
    if survey.within:
        yield from _links("one way between devices of the first host", survey.within[0])
    if survey.between:
        yield from _links("one way between hosts, from row to column", survey.between)
    yield from _messages([s for s in samples if s.kind not in ("matrix", "memory")])
    yield from _constants(fit)
    yield from ("", *_residuals(fit.residuals))
    yield from _slow(survey)


def as_toml(survey: Survey, fit: Fit) -> str:
    """Give the cluster's file: how it came about in comments, then its constants."""
    day = datetime.now(tz=UTC).date().isoformat()
    about = (
        f"Measured by `stretto probe` on {day}, on {survey.ranks} ranks, {survey.per_node} on each "
        f"host, {survey.backend}, in {survey.took_s:.0f} s. Efficiencies, launch, memory bandwidth "
        "and latencies are fitted; by kind, what they predict of what was measured:"
    )
    lines = [*textwrap.wrap(about, 96), "", *_residuals(fit.residuals)]
    for node, matrix in enumerate(survey.within):
        lines += _links(f"one way between devices of host {node}", matrix)
    said = "\n".join(f"# {line}".rstrip() for line in lines)
    return f"{said}\n\n{dumps(fit.cluster)}"


def as_json(survey: Survey, fit: Fit, *, toml: str) -> str:
    """Give all that was found as JSON, the cluster's file in it."""
    whole: dict[str, Any] = {
        "toml": toml,
        "ranks": survey.ranks,
        "ranks_per_host": survey.per_node,
        "backend": survey.backend,
        "took_s": survey.took_s,
        "constants": [asdict(change) for change in fit.changes],
        "devices_bytes_per_s": survey.within,
        "hosts_bytes_per_s": survey.between,
        "measured": [
            {
                **asdict(one.sample),
                "predicted_s": residual.predicted_s,
                "error": residual.error,
                "spread": one.timing.spread,
                "readings": one.timing.readings,
                "rank_s": one.timing.rank_s,
            }
            for one, residual in zip(survey.measured, fit.residuals, strict=True)
        ],
    }
    return json.dumps(whole, indent=1)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def _matrices(samples: Sequence[Sample]) -> Iterator[str]:
    """Give the rates of matrix products: a row for each shape, a column for each precision."""
    rates = {(s.shape, s.precision): 2.0 * _volume(s) / s.seconds for s in samples}
    shapes = {s.shape: _shape(s) for s in sorted(samples, key=_volume)}
    precisions = [*dict.fromkeys(s.precision for s in samples)]
    unit, factor = next(((u, f) for u, f in _RATES if max(rates.values()) >= f), _RATES[-1])
    rows = [
        [name, *(_cell(rates.get((shape, p)), factor) for p in precisions)]
        for shape, name in shapes.items()
    ]
    yield from ("", f"matrix products, {unit} of a rank while all multiply")
    yield from _table(["rows × columns × depth", *precisions], rows)


def _memory(samples: Sequence[Sample]) -> Iterator[str]:
    launch, largest = samples[0], samples[-1]
    rate = largest.size_bytes / largest.seconds / 1e9
    yield from ("", f"memory  {rate:.4g} GB/s read and written by a rank while all copy")
    yield f"launch  {launch.seconds * 1e6:.3g} us for the host to start a kernel"


def _links(title: str, matrix: Matrix) -> Iterator[str]:
    rates = [rate for row in matrix for rate in row if rate]
    yield from ("", f"links, GB/s {title}")
    if len(matrix) > _WIDEST:
        middle = statistics.median(rates)
        i, j = min(
            ((i, j) for i, row in enumerate(matrix) for j, rate in enumerate(row) if rate),
            key=lambda pair: matrix[pair[0]][pair[1]],
        )
        yield f"  lowest {min(rates) / 1e9:.4g} ({i} to {j}), median {middle / 1e9:.4g}"
        return
    rows = [[str(i), *(_cell(rate or None, 1e9) for rate in row)] for i, row in enumerate(matrix)]
    yield from _table(["", *map(str, range(len(matrix)))], rows)


def _messages(samples: Sequence[Sample]) -> Iterator[str]:
    """Give how long messages took: a row for each kind and axis, a column for each size."""
    if not samples:
        return
    sizes = sorted({_power(s) for s in samples})
    times: dict[tuple[str, str], dict[int, float]] = {}
    for s in samples:
        times.setdefault((s.kind.replace("_", "-"), _group(s)), {})[_power(s)] = s.seconds
    rows = [
        [kind, group, *(_time(row.get(size)) for size in sizes)]
        for (kind, group), row in times.items()
    ]
    yield from ("", "messages, all groups of an axis at once, by the size of the whole buffer")
    yield from _table(["", "", *(show_bytes(2.0**size) for size in sizes)], rows)


def _constants(fit: Fit) -> Iterator[str]:
    rows = [
        [change.name, f"{change.before:.4g}", f"{change.after:.4g}", f"{change.error:.0%}"]
        for change in fit.changes
    ]
    yield from ("", "constants, fitted by least squares")
    yield from _table(["", "begun at", "fitted", "±"], rows)


def _residuals(residuals: Sequence[Residual]) -> Iterator[str]:
    """Give how far the fitted cluster is from what was measured, by kind."""
    kinds: dict[str, list[Residual]] = {}
    for one in residuals:
        kinds.setdefault(one.sample.kind, []).append(one)
    rows = []
    for kind, those in kinds.items():
        worst = max(those, key=lambda one: abs(one.error))
        middle = statistics.median(abs(one.error) for one in those)
        name = kind.replace("_", "-")
        percents = f"{middle:.0%}", f"{worst.error:+.0%}"
        rows.append([name, str(len(those)), *percents, in_words(worst.sample)])
    yield from _table(["predicted / measured − 1", "samples", "median", "worst", ""], rows)


def _slow(survey: Survey) -> Iterator[str]:
    """Give a line for each rank that multiplies clearly more slowly than the middle one."""
    shares: list[list[float]] = [[] for _ in range(survey.ranks)]
    for one in survey.measured:
        if one.sample.kind == "matrix":
            for share, rank_s in zip(shares, one.timing.rank_s, strict=True):
                share.append(rank_s / statistics.median(one.timing.rank_s))
    for rank, share in enumerate(shares):
        if (slower := statistics.median(share)) > _SLOW:
            yield f"note: rank {rank} takes {slower:.2f} times what the middle rank does"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give lines with aligned columns; to the left what is first or has no title."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    for row in every:
        cells = (
            f"{cell:{'<' if i == 0 or not title else '>'}{width}}"
            for i, (cell, title, width) in enumerate(zip(row, head, widths, strict=True))
        )
        yield ("  " + "  ".join(cells)).rstrip()


def _cell(value: float | None, factor: float) -> str:
    return "–" if value is None else f"{value / factor:.3g}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    unit, factor = next(((u, f) for u, f in _TIMES if seconds >= f), _TIMES[-1])
    return f"{seconds / factor:.3g} {unit}"


def _shape(sample: Sample) -> str:
    return " × ".join(map(str, sample.shape))


def _volume(sample: Sample) -> int:
    rows, columns, depth = sample.shape
    return rows * columns * depth


def _power(sample: Sample) -> int:
    """The power of two that the size was rounded up from, to whole numbers for each rank."""
    return int(sample.size_bytes).bit_length() - 1


def _group(sample: Sample) -> str:
    apart = f", {sample.stride} apart" if sample.stride > 1 else ""
    return f"{sample.ranks} ranks{apart}"
