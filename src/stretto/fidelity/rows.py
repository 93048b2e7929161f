"""Published measurements as rows of JSON: what each says, and what is assumed where it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stretto.cost import Machine, Pricing
from stretto.cost.stacks import stack
from stretto.errors import InputError, Problem
from stretto.fidelity.choice import choice_of
from stretto.fidelity.fields import Fields
from stretto.fidelity.hardware import cluster_of
from stretto.fidelity.measured import Measured, measured
from stretto.fidelity.shape import shape_of
from stretto.fidelity.software import Software, software_of
from stretto.fidelity.unstated import with_layout, with_recompute


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement.

    Attributes:
        id: Its name.
        source: The short name of its source.
        group: Its table within the source.
        config: Alike for repeats of one configuration.
        status: ``ok``, or ``OOM`` where it ran out of memory.
        measured: Throughput of a device, in the unit that the row prints.
        peak_bytes: Measured peak of memory; None where it says none.
        pricing: What is priced to predict it.
        software: The generation of software that it is taken to be of.
        assumed: What it does not say, and the default that was taken.
        tree: The row as it was read, but for values that are not of their kind.
    """

    id: str
    source: str
    group: str
    config: str
    status: str
    measured: Measured
    peak_bytes: float | None
    pricing: Pricing
    software: Software
    assumed: tuple[str, ...]
    tree: Mapping[str, Any]

    @property
    def tokens_per_s(self) -> float | None:
        """Measured tokens per second and device; None where it says none."""
        return self.measured.tokens_per_s


def read(path: Path) -> tuple[Row, ...]:
    """Read rows of JSON, one a line.

    Args:
        path: The file.

    Raises:
        InputError: All lines that cannot be used.
    """
    rows, problems = sift(path)
    if problems:
        raise InputError(problems)
    return rows


def sift(path: Path) -> tuple[tuple[Row, ...], tuple[Problem, ...]]:
    """Give the rows of a file that can be used, and what is wrong with the others.

    Args:
        path: The file: one JSON object a line.

    Raises:
        InputError: The file cannot be read, or has no rows.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, line in _lines(path):
        try:
            rows.append(row(_object(line)))
        except InputError as error:
            where = f"{path}:{number}"
            problems += [
                replace(p, field=f"{where}: {p.field}" if p.field else where)
                for p in error.problems
            ]
    return tuple(rows), tuple(problems)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    remedy = "name a file of JSON rows"
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        rule = f"cannot be read: {error.strerror or error}"
        raise InputError(Problem(str(path), rule, remedy)) from None
    except UnicodeDecodeError:
        raise InputError(Problem(str(path), "is not UTF-8", remedy)) from None
    if not any(map(str.strip, lines)):
        raise InputError(Problem(str(path), "has no rows", "give one JSON object a line"))
    yield from ((i, line) for i, line in enumerate(lines, 1) if line.strip())


def _object(line: str) -> Mapping[str, Any]:
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem("", f"is not JSON: {error}", "mend that line")) from None
    if not isinstance(tree, dict):
        rule = f"is JSON, but a {type(tree).__name__}"
        raise InputError(Problem("", rule, "give one JSON object a line"))
    return tree


def row(tree: Mapping[str, Any]) -> Row:
    """Give the measurement that a JSON object describes.

    Args:
        tree: The object.

    Raises:
        InputError: What it must say and does not.
    """
    fields = Fields(tree)
    software = software_of(fields.tree)
    cluster, notes = cluster_of(fields.tree)
    machine = Machine.of(cluster)
    constants = stack(software.stack, kernel=software.kernel)
    if not software.known:
        fields.assumed.append(f"software = {software.stack}, by the year")

    def priced(f: Fields) -> Pricing:
        return Pricing(shape_of(f), choice_of(f, software), machine, constants)

    fields = with_layout(fields, priced, per_node=cluster.per_node)
    fields = with_recompute(fields, priced)
    pricing = priced(fields)
    throughput = measured(fields, pricing)
    tree, name = fields.tree, fields.text("id") or "?"
    source = fields.text("source_key") or "?"
    peak = tree.get("peak_mem_gb")
    return Row(
        id=name,
        source=source,
        group=fields.text("group") or source,
        config=fields.text("config_key") or name,
        status="OOM" if fields.text("status").upper() == "OOM" else "ok",
        measured=throughput,
        peak_bytes=peak * 1e9 if peak else None,
        pricing=pricing,
        software=software,
        assumed=tuple(dict.fromkeys((*notes, *fields.assumed))),
        tree=tree,
    )
