"""The mesh: ordered named axes over ranks, and views of them. Pure arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from stretto.errors import PlanError, Problem


@dataclass(frozen=True, slots=True)
class Mesh:
    """Ranks as a grid: ordered named axes, outermost first; the last varies fastest.

    A *view* names a run of axes as one (``ep = [dp, cp]``; ``dp = [outer, inner]``). It is another
    way to speak of the same ranks, never a second mesh.

    Attributes:
        axes: (name, extent) of each axis, outermost first.
        views: (name, axes it stands for), each of mesh axes only.
    """

    axes: tuple[tuple[str, int], ...]
    views: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        """Check names and extents.

        Raises:
            PlanError: All problems of the axes and the views.
        """
        problems = list(self._problems())
        if problems:
            raise PlanError(problems)

    def _problems(self) -> Iterable[Problem]:
        names = [name for name, _ in self.axes] + [name for name, _ in self.views]
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield Problem(f"mesh.{name}", "an axis or view is named twice", "name it once")
        for name, extent in self.axes:
            if extent < 1:
                yield Problem(f"mesh.{name}", f"extent {extent} is below 1", "use 1 or more")
        known = {name for name, _ in self.axes}
        for name, parts in self.views:
            missing = [p for p in parts if p not in known]
            if missing or not parts or len(set(parts)) != len(parts):
                yield Problem(
                    f"mesh.views.{name}",
                    f"a view lists different mesh axes, got {list(parts)}",
                    f"choose from {sorted(known)}",
                )

    @property
    def size(self) -> int:
        """The number of ranks."""
        return math.prod(extent for _, extent in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a rule may use: axes, then views."""
        return tuple(n for n, _ in self.axes) + tuple(n for n, _ in self.views)

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Give the mesh axes that `names` (axes or views) stand for, in the order given.

        Axes of extent 1 are left out: they split nothing.

        Raises:
            KeyError: A name that the mesh does not know.
        """
        views = dict(self.views)
        extents = dict(self.axes)
        parts = itertools.chain.from_iterable(views.get(n, (n,)) for n in names)
        return tuple(p for p in parts if extents[p] > 1)

    def extent(self, *names: str) -> int:
        """Give the product of the extents of `names` (axes or views); 1 for an unknown axis."""
        if not names:  # as most dimensions of most tensors
            return 1
        extents, views = dict(self.axes), dict(self.views)
        parts = itertools.chain.from_iterable(views.get(n, (n,)) for n in names)
        return math.prod(extents.get(p, 1) for p in parts)

    def split(self, axis: str, parts: tuple[tuple[str, int], ...]) -> Mesh:
        """Give the same mesh with `axis` cut into `parts`, outer first, and `axis` a view of them.

        Args:
            axis: A mesh axis.
            parts: (name, extent) of each part; the extents multiply to that of `axis`.

        Returns:
            A mesh of the same ranks in which `axis` still names the same groups.
        """
        assert math.prod(e for _, e in parts) == self.extent(axis), (
            "parts must multiply to the axis"
        )
        names = tuple(n for n, _ in parts)
        axes = tuple(new for old in self.axes for new in (parts if old[0] == axis else (old,)))
        views = tuple(
            (name, tuple(q for p in old for q in (names if p == axis else (p,))))
            for name, old in self.views
        )
        return Mesh(axes, (*views, (axis, names)))

    def coordinate(self, rank: int) -> dict[str, int]:
        """Give the coordinate of `rank` on every mesh axis."""
        coordinate: dict[str, int] = {}
        for name, extent in reversed(self.axes):
            rank, coordinate[name] = divmod(rank, extent)
        return coordinate

    def rank(self, coordinate: dict[str, int]) -> int:
        """Give the rank at `coordinate`; axes that it does not name are at 0."""
        rank = 0
        for name, extent in self.axes:
            rank = rank * extent + coordinate.get(name, 0)
        return rank

    def index(self, rank: int, axes: Iterable[str]) -> int:
        """Give the position of `rank` along `axes` taken together, the last varying fastest."""
        coordinate = self.coordinate(rank)
        index = 0
        for axis in self.expand(axes):
            index = index * self.extent(axis) + coordinate[axis]
        return index

    def group(self, rank: int, axes: Iterable[str]) -> tuple[int, ...]:
        """Give the ranks that differ from `rank` only along `axes`, ordered along them."""
        names = self.expand(axes)
        coordinate = self.coordinate(rank)
        ranges = [range(self.extent(n)) for n in names]
        return tuple(
            self.rank(coordinate | dict(zip(names, point, strict=True)))
            for point in itertools.product(*ranges)
        )

    def groups(self, axes: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Give every group along `axes`: together they hold each rank once."""
        names = tuple(axes)
        return tuple(dict.fromkeys(self.group(rank, names) for rank in range(self.size)))

    def shift(self, rank: int, axis: str, *, by: int) -> int:
        """Give the rank `by` steps along `axis` from `rank`, around the ring."""
        coordinate = self.coordinate(rank)
        coordinate[axis] = (coordinate[axis] + by) % self.extent(axis)
        return self.rank(coordinate)
