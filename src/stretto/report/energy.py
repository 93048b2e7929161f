"""The frontier of a step's time against its energy, in a table and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stretto.report.bars import stroke
from stretto.report.quantities import change, energy, step
from stretto.simulate.energy import LOWEST, Frontier

_KINDS = 12  # that have a column of their own
_WIDTH = 20


def energy_page(frontier: Frontier) -> Group:
    """Give the frontier: what is free, and a row for each point with the ranks' mean clocks."""
    best = frontier.points[-1]
    head = (
        f"{energy(frontier.full_j)} a step at full clocks; {frontier.free:.1%} of it saved "
        f"without a slower step, {1 - best.energy_j / frontier.full_j:.1%} by one "
        f"{best.step_s / frontier.full_s - 1:.1%} longer"
    )
    table = Table.grid(padding=(0, 1), pad_edge=False)
    kinds = frontier.alike[:_KINDS]
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for _ in kinds:
        table.add_column(justify="right", no_wrap=True)
    names = ("step", "", "energy", "", *(f"r{ranks[0]}" for ranks in kinds))
    table.add_row(*(Text(name, style="dim") for name in names))
    for point in frontier.points:
        table.add_row(
            step(point.step_s),
            change(point.step_s / frontier.full_s),
            energy(point.energy_j),
            Text(stroke(point.energy_j / frontier.full_j, _WIDTH), style="cyan"),
            *(f"{clock:.0%}" for clock in point.mean[:_KINDS]),
        )
    more = len(frontier.alike) - len(kinds)
    note = (
        f"r: mean clock of products on the ranks like it{f', {more} kinds more' if more else ''}; "
        f"{LOWEST:.0%} to 100%, an instruction at a time; voltage is taken to fall with the clock"
    )
    return Group(Text("energy", style="bold"), Text(head), table, Text(note, style="dim"))


def energy_json(frontier: Frontier) -> dict[str, Any]:
    """Give the frontier as JSON, with the clock of every instruction of each kind of rank."""
    return {
        "full": {"step_s": frontier.full_s, "energy_j": frontier.full_j},
        "free": frontier.free,
        "ranks": [list(ranks) for ranks in frontier.alike],
        "points": [
            {
                "step_s": point.step_s,
                "energy_j": point.energy_j,
                "mean_clock": list(point.mean),
                "clock": [[round(float(c), 4) for c in clocks] for clocks in point.clock],
                "instruction": [list(those) for those in point.instruction],
            }
            for point in frontier.points
        ],
    }
