"""What a page consists of: its sections, and the files that draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from stretto.page import curves, explorer, head, memory, plan, step
from stretto.page.subject import Subject

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page.

    Attributes:
        name: What it is called, in scripts and in routes.
        data: Gives what it draws as JSON; None where there is nothing of the kind.
        answer: Gives more of it, to a live page that asks ``/api/NAME``, from the query.
        scripts: Files in ``static/`` that draw it, in order.
        follows: What else of a run than its plan `data` reads: it is made again when that goes on.
        styles: Files in ``static/`` with its style.
        still: Gives what a file draws, which can ask nobody for more; None for what `data` gives.
    """

    name: str
    data: Callable[[Subject], Data | None]
    answer: Callable[[Subject, Mapping[str, str]], Data] | None
    scripts: tuple[str, ...]
    follows: tuple[Literal["metrics", "recordings"], ...] = ()
    styles: tuple[str, ...] = ()
    still: Callable[[Subject, Callable[[str], None]], Data | None] | None = None


SECTIONS = (
    Section(
        "head",
        head.data,
        head.answer,
        scripts=("head.js",),
        follows=("metrics", "recordings"),
        still=head.still,
    ),
    Section(
        "plan",
        plan.data,
        None,
        scripts=("tree.js", "plan_mesh.js", "plan_map.js", "plan_stages.js", "plan.js"),
        styles=("plan.css",),
    ),
    Section(
        "step",
        step.data,
        step.answer,
        scripts=(
            "step_model.js",
            "step_paint.js",
            "step_view.js",
            "step_over.js",
            "step_input.js",
            "step_map.js",
            "step_words.js",
            "step.js",
        ),
        follows=("recordings",),
        styles=("step.css",),
        still=step.still,
    ),
    Section(
        "memory",
        memory.data,
        memory.answer,
        scripts=("memory_chart.js", "memory_peaks.js", "memory.js"),
        follows=("recordings",),
        still=memory.still,
    ),
    Section(
        "curves",
        curves.data,
        curves.answer,
        scripts=("chart.js", "curves_runs.js", "curves.js"),
        follows=("metrics",),
        styles=("curves.css",),
    ),
    Section(
        "explorer",
        explorer.data,
        explorer.answer,
        scripts=("explorer_plot.js", "explorer_plan.js", "explorer_control.js", "explorer.js"),
        styles=("explorer.css",),
        still=explorer.still,
    ),
)
"""The sections; their scripts say in which order they stand."""

EARLY = ("numbers.js", "core.js")
"""Scripts before anything is drawn."""

LATE = (
    "vendor/uPlot.iife.min.js",
    "controls.js",
    *(script for section in SECTIONS for script in section.scripts),
)
"""Scripts at the end of a page of a run or a plan."""

RUNS = ("controls.js", "runs.js")
"""Scripts at the end of the page that lists runs."""

STYLES = (
    "vendor/uPlot.min.css",
    "style.css",
    *(style for section in SECTIONS for style in section.styles),
)


@cache
def static(name: str) -> str:
    """Give a file of the page by its name."""
    return files("stretto.page").joinpath("static").joinpath(name).read_text("utf-8")
