"""The architecture: which module stands on which floor, and what it may import.

`PLACES` is the diagram. A module may import every module of the floors below it, and of its own
floor only what its line names; beyond the standard library, what `PACKAGES` gives its floor and
what its line adds. A module that no line places fails, and so does a line that places no module.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "stretto"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module stands.

    Attributes:
        floor: Its floor; it may import all floors below.
        beside: What it may import of its own floor, as names or patterns.
        packages: Third-party packages that it may import besides those of its floor.
    """

    floor: int
    beside: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


# Third-party packages that a whole floor may import.
PACKAGES: dict[int, tuple[str, ...]] = {
    0: (),
    1: ("numpy",),
    2: ("numpy",),
    3: ("numpy",),
    4: ("numpy",),
    5: ("numpy", "torch"),
    6: ("numpy", "torch", "rich"),
    7: (),
}

# `x.*` is the package x and all in it, where no longer line fits.
PLACES: dict[str, Place] = {
    # 0: what everything says
    "errors": Place(0),
    "units": Place(0, beside=("errors",)),
    "quantities": Place(0, beside=("units",)),
    # 1: what exists
    "mesh": Place(1),
    "layout": Place(1, beside=("mesh",)),
    "model.*": Place(1, beside=("model.*",)),
    "huggingface.*": Place(1, beside=("huggingface.*", "model")),
    "presets": Place(1, beside=("model",)),
    "initial": Place(1, beside=("layout", "model")),
    "rules": Place(1, beside=("mesh", "layout", "model")),
    "cluster.*": Place(1, beside=("cluster.*",)),
    "cluster.fit": Place(1, beside=("cluster.*",), packages=("scipy",)),
    "recipe": Place(1),
    "plan.*": Place(1, beside=("mesh", "rules", "model", "cluster", "plan.*")),
    "plan.toml": Place(1, beside=("mesh", "rules", "plan.*"), packages=("tomli_w",)),
    # 2: in what order
    "schedule.*": Place(2, beside=("schedule.*",)),
    # 3: what is done
    "program": Place(3),
    "program.*": Place(3, beside=("program.*",)),
    # 4: what would happen, what must be read
    "reference.*": Place(4, beside=("reference.*",)),
    "fidelity.*": Place(4, beside=("cost.*", "fidelity.*")),
    "checkpoint": Place(4),
    "checkpoint.*": Place(4, beside=("checkpoint.*",)),
    "data.*": Place(4, beside=("data.*",), packages=("tokenizers", "pyarrow")),
    "cost.*": Place(4, beside=("cost.*",)),
    "search.*": Place(4, beside=("cost.*", "search.*")),
    "search.confirm": Place(4, beside=("cost.*", "search.*", "simulate.*")),
    "timeline.*": Place(4, beside=("timeline.*", "cost.instruction")),
    "timeline.track": Place(4, beside=("timeline.*",), packages=("safetensors",)),
    "diagnose.*": Place(4, beside=("cost.*", "timeline.*", "simulate.*", "diagnose.*")),
    "forecast.*": Place(4, beside=("forecast.*",)),
    "simulate.*": Place(4, beside=("cost.*", "timeline.*", "simulate.*")),
    "simulate.energy": Place(4, beside=("cost.*", "timeline.*", "simulate.*"), packages=("scipy",)),
    "calibrate.*": Place(4, beside=("calibrate.*", "cost.*", "simulate.*", "timeline.*")),
    "calibrate.fit": Place(
        4, beside=("calibrate.*", "cost.*", "simulate.*", "timeline.*"), packages=("scipy",)
    ),
    # 5: do it
    "nn": Place(5),
    "checkpoint.io": Place(5, packages=("safetensors",)),
    "runtime.*": Place(5, beside=("runtime.*", "nn", "checkpoint.io")),
    "runtime.weights": Place(5, beside=("nn",), packages=("safetensors",)),
    "runtime.parity": Place(5, beside=("runtime.*",), packages=("safetensors",)),
    # 6: for people
    "emit.*": Place(6, beside=("emit.*",)),
    "emit.torchtitan": Place(6, beside=("emit.*",), packages=("tomli_w",)),
    "report.*": Place(6, beside=("report.*",), packages=("tensorboardX",)),
    "page.*": Place(6, beside=("page.*", "report.*")),
    "cli.*": Place(6, beside=("cli.*", "report.*")),
    "cli.report": Place(6, beside=("cli.*", "page.*")),
    "cli.ui": Place(6, beside=("cli.*", "page.*")),
    "cli.shown": Place(6, beside=("cli.*", "page.*")),
    "cli.plan_files": Place(6, beside=("cli.*", "report.*", "emit.*")),
    "cli.rundir": Place(6, beside=("cli.*", "report.*", "page.standing"), packages=("tomli_w",)),
    # 7: the public surface
    "stretto": Place(7),
    "__main__": Place(7),
}

# What `import stretto` leaves to whoever needs it.
HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pyarrow",
    "tensorboardX",
    "rich",
    "scipy",
    "numpy.testing",
    "numpy.f2py",
)


def fits(name: str, pattern: str) -> bool:
    """Tell whether `pattern` names the module: ``x.*`` is the package x and all in it."""
    package = pattern.removesuffix(".*")
    return name == package or (package != pattern and name.startswith(f"{package}."))


def place_of(name: str) -> Place | None:
    """Give the place of a module: of the lines that fit it, the longest."""
    lines = [line for line in PLACES if fits(name, line)]
    return PLACES[max(lines, key=len)] if lines else None


def sources() -> dict[str, str]:
    """Give the source of every module; the surface is called ``stretto``, mesh just ``mesh``."""
    files = {path.relative_to(SOURCE.parent): path for path in sorted(SOURCE.rglob("*.py"))}
    return {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__").removeprefix("stretto."): (
            path.read_text(encoding="utf-8")
        )
        for file, path in files.items()
    }


def imports(source: str, *, known: Collection[str]) -> Iterator[str]:
    """Give all modules that a source imports, wherever in it; those of Stretto by their short name.

    Args:
        source: Python source.
        known: The short names of Stretto's modules, to tell ``mesh.Mesh`` from a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("stretto.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix("stretto.")
                yield inner if inner in known else module.removeprefix("stretto.")


def offences(name: str, source: str, *, known: Collection[str]) -> list[str]:
    """List what a module imports and may not.

    Args:
        name: Its short name.
        source: Its source.
        known: The short names of all modules of Stretto.
    """
    place = place_of(name)
    if place is None:
        return [f"{name} has no line in PLACES: say there on which floor it stands"]
    return [
        f"{name} (floor {place.floor}) may not import {target}"
        for target in imports(source, known=known)
        if not allowed(place, target, known=known)
    ]


def allowed(place: Place, target: str, *, known: Collection[str]) -> bool:
    """Tell whether a module that stands at `place` may import `target`."""
    if target not in known:
        package = target.split(".")[0]
        return package in {*sys.stdlib_module_names, *PACKAGES[place.floor], *place.packages}
    other = place_of(target)
    return other is not None and (
        other.floor < place.floor
        or (other.floor == place.floor and any(fits(target, beside) for beside in place.beside))
    )


def loaded_by(*names: str) -> set[str]:
    """Give the modules that are loaded after a fresh interpreter imports `names`."""
    program = f"import sys, {', '.join(names)}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True).split())


def test_every_module_imports_only_what_its_place_allows() -> None:
    modules = sources()
    found = [
        offence
        for name, source in modules.items()
        for offence in offences(name, source, known=modules)
    ]
    assert not found, "\n".join(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = sources()
    TopologicalSorter(
        {name: set(imports(source, known=modules)) for name, source in modules.items()}
    ).prepare()


def test_every_line_of_the_table_places_a_module() -> None:
    modules = sources()
    assert [line for line in PLACES if not any(fits(name, line) for name in modules)] == []


def test_import_stretto_leaves_out_all_that_is_heavy() -> None:
    assert loaded_by("stretto").isdisjoint(HEAVY)


def test_floors_0_to_4_leave_torch_out() -> None:
    places = {name: place_of(name) for name in sources()}
    low = [f"stretto.{name}" for name, place in places.items() if place and place.floor <= 4]
    assert "torch" not in loaded_by(*low)


# The checker itself: each source breaks one rule.

KNOWN = ("stretto", "mesh", "layout", "nn", "checkpoint", "checkpoint.reshard", "checkpoint.io")


def test_an_import_within_a_function_counts() -> None:
    source = "def run():\n    import torch.nn\n"
    assert offences("mesh", source, known=KNOWN) == ["mesh (floor 1) may not import torch.nn"]


def test_an_import_for_types_only_counts() -> None:
    source = "if TYPE_CHECKING:\n    from stretto.nn import Block\n"
    assert offences("layout", source, known=KNOWN) == ["layout (floor 1) may not import nn"]


def test_a_module_imported_as_a_name_counts_as_that_module() -> None:
    source = "from stretto.checkpoint import io"
    assert offences("checkpoint.reshard", source, known=KNOWN) == [
        "checkpoint.reshard (floor 4) may not import checkpoint.io"
    ]


def test_a_relative_import_is_refused() -> None:
    source = "from ..mesh import Mesh"
    assert offences("nn", source, known=KNOWN) == ["nn (floor 5) may not import ..mesh"]


def test_a_neighbour_is_refused_unless_it_is_named() -> None:
    assert offences("layout", "from stretto.mesh import Mesh", known=KNOWN) == []
    assert offences("mesh", "from stretto.layout import Layout", known=KNOWN) == [
        "mesh (floor 1) may not import layout"
    ]


def test_nothing_imports_the_public_surface() -> None:
    assert offences("nn", "from stretto import Mesh", known=KNOWN) == [
        "nn (floor 5) may not import stretto"
    ]


def test_a_module_of_stretto_that_does_not_exist_is_refused() -> None:
    assert offences("nn", "import stretto.mush", known=KNOWN) == [
        "nn (floor 5) may not import mush"
    ]


def test_a_module_without_a_line_is_refused() -> None:
    (offence,) = offences("utils", "", known=KNOWN)
    assert "utils has no line" in offence


def test_a_package_for_one_module_is_not_for_its_neighbours() -> None:
    assert offences("plan.toml", "import tomli_w", known=KNOWN) == []
    assert offences("rules", "import tomli_w", known=KNOWN) == [
        "rules (floor 1) may not import tomli_w"
    ]
