"""A forecast in a terminal: the verdict, where the time goes, and what it depends on."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stretto.forecast import Forecast, quantiles
from stretto.forecast.failures import DAY_S
from stretto.forecast.interval import FLAT, Intervals
from stretto.forecast.lanes import GIVE_UP
from stretto.forecast.spares import nodes_away
from stretto.report.bars import bars, stroke
from stretto.report.forecast_told import Told
from stretto.report.quantities import counted, duration, energy, money, step

_SLIGHT = 0.00005  # of the time: too little for a line
_POINTS = 9  # of the curve in small text
_LONG_S = 120.0
_FEW_DAYS_S = 3 * DAY_S  # of which a date says too little
_HOPELESS = (
    "No run is done, so other intervals between checkpoints, and other numbers of spare nodes, "
    "were not tried; leave out --spares for as many as are away, or say --elastic"
)


def page(told: Told) -> Group:
    """Give all that there is to say of a forecast."""
    return Group(*_sections(told))


def _sections(told: Told) -> Iterator[RenderableType]:
    forecast, curve = told.answer.forecast, told.answer.intervals
    yield from _heading(told)
    yield from _section("", *_verdict(told))
    yield from _section("", _parts(forecast))
    if forecast.failures.components:
        yield from _section("interruptions", _components(forecast))
    if told.answer.hopeless:
        yield from _section("", Text(_HOPELESS, "yellow"))
        return
    yield from _section("how often to save", *_intervals(curve, forecast))
    if told.answer.spares:
        yield from _section("spare nodes", *_spares(told))


def _section(title: str, *content: RenderableType) -> Iterator[RenderableType]:
    yield Text()
    if title:
        yield Text(title, style="bold")
    yield Padding(Group(*content), (0, 0, 0, 2))


def _heading(told: Told) -> Iterator[Text]:
    forecast = told.answer.forecast
    job, saved = forecast.setup.job, forecast.setup.checkpoint
    failures, spares = forecast.failures, forecast.setup.spares
    yield Text(told.title, style="bold")
    mtbf_s = failures.mtbf_s(devices=job.devices, nodes=job.nodes)
    often = "nothing fails" if math.isinf(mtbf_s) else f"one failure every {duration(mtbf_s)}"
    yield Text(
        f"{counted(job.steps, 'step')} of {step(job.step_s)}    {often}    "
        f"{counted(spares.nodes, 'spare node')}"
    )
    if failures.components:
        yield Text(f"failures of {failures.about}: {failures.source}", style="dim")
    stops, stored, read = map(_time, (saved.blocking_s, saved.background_s, saved.load_s))
    words = f"a checkpoint stops steps for {stops}, is stored {stored} later, and is read in {read}"
    yield Text(words, style="dim")
    if told.notes:
        yield Text(f"assumed: {'; '.join(told.notes)}", style="dim")


def _verdict(told: Told) -> Iterator[Text]:
    forecast = told.answer.forecast
    low, middle, high = quantiles(forecast.finish_s)
    runs, lost = len(forecast.finish_s), forecast.given_up
    if math.isfinite(middle):
        end = f"done {'on ' if _date(told, middle) else ''}{_day(told, middle)}"
        spread = f"    10–90 % of {runs} runs: {_day(told, low)} to {_day(told, high)}"
        yield Text.assemble((end, "bold"), spread if runs > 1 else "")
        shares = quantiles(forecast.goodput)
        around = f" in the middle run ({shares[0]:.1%} to {shares[2]:.1%})" if runs > 1 else ""
        yield Text(
            f"goodput {shares[1]:.1%}{around}: {_days(middle)} for "
            f"{_days(forecast.setup.job.work_s)} of steps"
        )
    if lost:
        rule = f"not done in {GIVE_UP:g} times what they take without failures"
        some = f"{lost} of {counted(runs, 'run')} {'is' if lost == 1 else 'are'}"
        yield Text(f"{some} {rule}", style="yellow")
    many = quantiles(forecast.interruptions.sum(axis=1))
    if many[2] and lost < runs:
        around = f" ({many[0]:,.0f} to {many[2]:,.0f})" if runs > 1 else ""
        yield Text(f"{counted(round(many[1]), 'interruption')}{around}")
    if told.price is not None and not lost:
        spent = [money(told.price.money(forecast))]
        spent += [energy(told.price.energy_j(forecast))] if told.price.step_j else []
        spares = ", spare nodes included" if forecast.setup.spares.nodes else ""
        yield Text(f"{', '.join(spent)}{spares}")


def _day(told: Told, seconds: float) -> str:
    """Give a day: ``7 Mar 2026``; of what takes few, how long that is."""
    if math.isinf(seconds):
        return "never"
    day = _date(told, seconds)
    if day:
        return f"{day.day} {day:%b %Y}"
    years = seconds / DAY_S / 365.25
    return f"{years:,.0f} years later" if years >= 2 else f"{duration(seconds)} later"


def _date(told: Told, seconds: float) -> datetime.date | None:
    return told.date(seconds) if seconds >= _FEW_DAYS_S else None


def _time(seconds: float) -> str:
    return step(seconds) if seconds < _LONG_S else duration(seconds)


def _days(seconds: float) -> str:
    """Give the time of a training: ``57.3 days``, ``5 h 12 min``."""
    return f"{seconds / DAY_S:,.1f} days" if seconds >= 2 * DAY_S else duration(seconds)


def _parts(forecast: Forecast) -> RenderableType:
    seconds = dict(zip(forecast.shares, forecast.parts_s.mean(axis=0).tolist(), strict=True))
    rows = [(name, s) for name, s in seconds.items() if s > _SLIGHT * sum(seconds.values())]
    whole = sum(seconds.values())
    return bars(
        "where the time goes, mean of all runs", rows, whole=whole,
        show=lambda value: f"{_days(value):>12}  {value / whole:>6.2%}",
    )  # fmt: skip


def _components(forecast: Forecast) -> Table:
    table = _table("left", "right", "right", "left", "left")
    head = ("", "mean", "10–90 %", "shows as", "needs")
    table.add_row(*(Text(word, style="dim") for word in head))
    pairs = zip(forecast.failures.components, forecast.interruptions.T, strict=True)
    for component, column in sorted(pairs, key=lambda pair: -float(np.mean(pair[1]))):
        low, _, high = quantiles(column)
        table.add_row(
            component.name, f"{np.mean(column):,.1f}", f"{low:,.0f}–{high:,.0f}",
            Text(component.shows, "dim"), Text(component.needs, "dim"),
        )  # fmt: skip
    return table


def _intervals(curve: Intervals, forecast: Forecast) -> Iterator[RenderableType]:
    low, high = curve.flat_s
    best, least, most = map(duration, (curve.best_s, low, high))
    yield Text(f"every {best} is best; from {least} to {most} it costs no more than {FLAT:.1%}")
    if math.isfinite(curve.mtbf_s) and forecast.setup.checkpoint.memory_every_s is None:
        stored = _time(forecast.setup.checkpoint.background_s)
        yield Text(
            f"closed forms: {duration(curve.young_s)} (Young, 1974), "
            f"{duration(curve.daly_s)} (Daly, 2006), with {duration(curve.mtbf_s)} between "
            f"failures that are not planned; they do not know that storing takes {stored}",
            style="dim",
        )
    table = _table("right", "right", "left", "left")
    head = ("every", "mean goodput", "lost", "")
    table.add_row(*(Text(word, style="dim") for word in head))
    worst = max(1 - min(curve.goodput), 1e-9)
    for i in _spaced(len(curve.every_s), curve.every_s.index(curve.best_s)):
        every, share = curve.every_s[i], curve.goodput[i]
        mark = "best" if every == curve.best_s else ""
        bar = Text(stroke((1 - share) / worst), style="cyan")
        table.add_row(duration(every), f"{share:.2%}", bar, Text(mark, "bold"))
    yield table


def _spaced(count: int, best: int) -> list[int]:
    """Give some places of a curve, its ends and the best among them."""
    some = {round(i * (count - 1) / (_POINTS - 1)) for i in range(_POINTS)}
    return sorted(some | {best})


def _spares(told: Told) -> Iterator[RenderableType]:
    answer = told.answer
    away = nodes_away(answer.forecast.setup, answer.forecast.failures)
    yield Text(f"{away:.1f} nodes are reset or repaired at a time on average", style="dim")
    priced = told.price is not None and told.price.device_s > 0
    table = _table("right", "right", "left", "right", *(("right",) if priced else ()))
    head = ("nodes", "mean goodput", "done", "waiting", *(("money",) if priced else ()))
    table.add_row(*(Text(word, style="dim") for word in head))
    own = answer.forecast.setup.spares.nodes
    for one in answer.spares:
        middle = quantiles(one.finish_s)[1]
        cells = [
            f"{one.setup.spares.nodes:,}", f"{float(np.mean(one.goodput)):.2%}",
            _day(told, middle), f"{one.shares['waiting']:.2%}",
        ]  # fmt: skip
        if priced and told.price is not None:
            cells.append("–" if one.given_up else money(told.price.money(one)))
        bold = "bold" if one.setup.spares.nodes == own else ""
        table.add_row(*(Text(cell, bold) for cell in cells))
    yield table


def _table(*columns: Literal["left", "right"]) -> Table:
    """Give an empty table."""
    table = Table.grid(padding=(0, 2))
    for justify in columns:
        table.add_column(justify=justify, no_wrap=True)
    return table
