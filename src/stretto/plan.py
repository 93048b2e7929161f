"""The plan: all that decides what each device does in a step. A frozen value, TOML in and out."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import tomli_w

from stretto.cluster import Cluster
from stretto.errors import InputError, PlanError, Problem
from stretto.mesh import Mesh
from stretto.model import BlockKind, Model
from stretto.rules import COMPUTE_DIMS, STORAGE_DIMS, Placement, Rules, Store, Table
from stretto.units import parse, show_bytes

Recompute = Literal["none", "selective", "full"]
DType = Literal["float64", "float32", "bfloat16"]
ScheduleName = Literal["gpipe", "1f1b"]

AXES = ("pp", "dp", "cp", "tp")
"""The order of axes, outermost first, that a short form lays out."""

DTYPE_BYTES: Mapping[str, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "int64": 8}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How the chain of blocks is cut over ``pp`` and in what order it runs.

    Attributes:
        schedule: Name of the schedule.
        cut: First block of each stage, beginning with 0; empty to balance the stages by cost.
    """

    schedule: ScheduleName = "1f1b"
    cut: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept for the backward pass.

    Attributes:
        recompute: ``none``; ``selective``: attention blocks are run again in the backward pass
            (Korthikanti et al., 2022); ``full``: every block is (Chen et al., 2016).
    """

    recompute: Recompute = "none"

    @property
    def kinds(self) -> frozenset[BlockKind]:
        """The kinds of block that run again in the backward pass."""
        match self.recompute:
            case "none":
                return frozenset()
            case "selective":
                return frozenset({BlockKind.ATTENTION})
            case "full":
                return frozenset(BlockKind) - {BlockKind.EMBEDDING}


@dataclass(frozen=True, slots=True)
class Communication:
    """How moves are grouped.

    Attributes:
        bucket_bytes: Gradients and parameters move together in buckets of about this size.
    """

    bucket_bytes: int = 25 * 2**20


@dataclass(frozen=True, slots=True)
class Numerics:
    """Precision and compilation.

    Attributes:
        dtype: In which blocks compute. With ``bfloat16``, master weights, gradient accumulation and
            reduction are in float32.
        compile: Whether each block goes through ``torch.compile``.
    """

    dtype: DType = "float32"
    compile: bool = False

    @property
    def master(self) -> DType:
        """The precision of master weights, optimizer state and reductions."""
        return "float64" if self.dtype == "float64" else "float32"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one optimizer step sees.

    Attributes:
        sequences: Sequences in a step, over all ranks.
        micro_batch: Sequences that one replica runs at once.
        seq: Positions of a sequence.
    """

    sequences: int = 16
    micro_batch: int = 8
    seq: int = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is trained on a mesh.

    Attributes:
        mesh: The ranks as a grid.
        rules: Where tensors lie.
        pipeline: Stages and their schedule.
        memory: What is kept for the backward pass.
        communication: How moves are grouped.
        numerics: Precision and compilation.
        batch: What a step sees.
    """

    mesh: Mesh = field(default_factory=lambda: Mesh((("dp", 1),)))
    rules: Rules = field(default_factory=Rules)
    pipeline: Pipeline = field(default_factory=Pipeline)
    memory: Memory = field(default_factory=Memory)
    communication: Communication = field(default_factory=Communication)
    numerics: Numerics = field(default_factory=Numerics)
    batch: Batch = field(default_factory=Batch)

    @staticmethod
    def of(
        *, pp: int = 1, dp: int = 1, tp: int = 1, zero: int = 0, shard: int = 0,
        sequence: bool = True, **parts: Any,
    ) -> Plan:  # fmt: skip
        """Give the plan that the usual words name.

        Args:
            pp: Pipeline stages.
            dp: Data-parallel replicas.
            tp: Tensor-parallel ranks.
            zero: What data-parallel ranks shard: 0 nothing, 1 optimizer state, 2 gradients too, 3
                parameters too (Rajbhandari et al., 2020).
            shard: With `zero`, the ranks that cut a tensor among them, a divisor of `dp`; outside
                them shards are replicated (hybrid sharding). 0 for all of `dp`.
            sequence: Whether activations between blocks are split over `tp` too (Korthikanti et
                al., 2022).
            parts: Other fields of the plan.

        Raises:
            PlanError: A number that cannot be.
        """
        problems = [
            Problem(name, f"is {value}, below 1", "use 1 or more")
            for name, value in (("pp", pp), ("dp", dp), ("tp", tp))
            if value < 1
        ]
        if zero not in range(4):
            problems.append(Problem("zero", f"is {zero}", "choose 0, 1, 2 or 3"))
        if shard and (shard < 1 or dp % shard):
            problems.append(
                Problem("shard", f"must divide dp, but {dp} % {shard} is not 0", "choose a divisor")
            )
        if problems:
            raise PlanError(problems)
        hybrid = zero > 0 and 0 < shard < dp
        data = (("replica", dp // shard), ("shard", shard)) if hybrid else (("dp", dp),)
        mesh = Mesh(
            (("pp", pp), *data, ("tp", tp)), (("dp", ("replica", "shard")),) if hybrid else ()
        )
        inner = ("shard",) if hybrid else ("dp",)
        table: Table = tuple(
            (dim, inner) for dim in ("embed", "ff", "head_dim", "vocab", "position")
        )
        compute = [("batch", ("dp",))]
        if tp > 1:
            dims = ("heads", "ff", "vocab") + (("seq",) if sequence else ())
            compute += [(dim, ("tp",)) for dim in dims]
        rules = Rules(
            tuple(compute),
            table if zero >= 3 else (),
            table if zero >= 2 else (),
            table if zero >= 1 else (),
        )
        return Plan(mesh, rules, **parts)

    @property
    def replicas(self) -> int:
        """The number of ranks that see different sequences."""
        return self.mesh.extent(*dict(self.rules.compute).get("batch", ()))

    @property
    def stages(self) -> int:
        """The number of pipeline stages."""
        return self.mesh.extent("pp")

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches that each replica runs in a step."""
        return self.batch.sequences // (self.replicas * self.batch.micro_batch)

    def to_toml(self) -> str:
        """Give the plan as the TOML that `from_toml` reads."""
        views = {"views": _lists(self.mesh.views)} if self.mesh.views else {}
        return tomli_w.dumps(
            {
                "mesh": dict(self.mesh.axes) | views,
                "rules": {
                    f.name: _lists(table)
                    for f in fields(Rules)
                    for table in [getattr(self.rules, f.name)]
                    if table
                },
                "pipeline": {"schedule": self.pipeline.schedule, "cut": list(self.pipeline.cut)},
                "memory": {"recompute": self.memory.recompute},
                "communication": {"bucket": f"{self.communication.bucket_bytes}B"},
                "numerics": {"dtype": self.numerics.dtype, "compile": self.numerics.compile},
                "batch": {f.name: getattr(self.batch, f.name) for f in fields(Batch)},
            }
        )  # fmt: skip

    @staticmethod
    def from_toml(text: str) -> Plan:
        """Read a plan.

        Raises:
            PlanError: All problems: broken TOML, unknown keys, wrong types, impossible values.
        """
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PlanError(Problem("plan", f"is not TOML: {error}", "mend that line")) from None
        return read(tree)

    def check(self, model: Model, cluster: Cluster | None = None) -> tuple[Problem, ...]:
        """Give all that is wrong with running this plan for `model` on `cluster`.

        Args:
            model: What is trained.
            cluster: What it is trained on; None to check all but the devices.
        """
        found = [*_own_problems(self), *_position_problems(self, model)]
        found += _pipeline_problems(self, model)
        if cluster is not None:
            found += _size_problems(self, cluster)
            found += _memory_problems(self, model, cluster) if not found else ()
        return tuple(found)


def _lists(table: Table) -> dict[str, list[str]]:
    return {name: list(axes) for name, axes in table}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read(tree: Mapping[str, Any]) -> Plan:
    """Give the plan that a parsed TOML tree describes.

    Raises:
        PlanError: All problems of the tree.
    """
    problems: list[Problem] = []
    sections = {f.name for f in fields(Plan)}
    problems += unknown(tree, sections, "")
    parts: dict[str, Any] = {}
    for name in sorted(sections & set(tree)):
        value = tree[name]
        if not isinstance(value, Mapping):
            problems.append(Problem(name, f"is {value!r}, not a table", f"write [{name}]"))
            continue
        try:
            parts[name] = _SECTIONS[name](value)
        except InputError as error:
            problems += error.problems
    if problems:
        lost = (sections & set(tree)) - set(parts)
        rest = _own_problems(Plan(**parts)) if not lost & {"mesh", "rules", "batch"} else ()
        raise PlanError([*problems, *rest])
    return Plan(**parts)


def unknown(tree: Mapping[str, Any], known: set[str], prefix: str) -> list[Problem]:
    """Give a problem for each key of `tree` that is not in `known`, and the nearest one that is."""
    found = []
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"choose from {sorted(known)}"
            found.append(Problem(prefix + key, "there is no such key", remedy))
    return found


def _mesh(tree: Mapping[str, Any]) -> Mesh:
    axes = {k: v for k, v in tree.items() if k != "views"}
    problems = [
        Problem(f"mesh.{k}", f"is {v!r}, not a whole number", "write its extent")
        for k, v in axes.items()
        if type(v) is not int
    ]
    views: Table = ()
    try:
        views = _table(tree.get("views", {}), "mesh.views")
    except PlanError as error:
        problems += error.problems
    if problems:
        raise PlanError(problems)
    return Mesh(tuple(axes.items()), views)


def _table(tree: Any, field: str) -> Table:
    if not isinstance(tree, Mapping):
        raise PlanError(Problem(field, f"is {tree!r}, not a table", f"write [{field}]"))
    table: list[tuple[str, tuple[str, ...]]] = []
    problems = []
    for key, value in tree.items():
        axes = [value] if isinstance(value, str) else value
        if isinstance(axes, list) and all(isinstance(a, str) for a in axes):
            table.append((key, tuple(axes)))
        else:
            problems.append(
                Problem(f"{field}.{key}", f"is {value!r}", 'write axes: "dp" or ["dp", "tp"]')
            )
    if problems:
        raise PlanError(problems)
    return tuple(table)


def _rules(tree: Mapping[str, Any]) -> Rules:
    problems = unknown(tree, {f.name for f in fields(Rules)}, "rules.")
    tables: dict[str, Table] = {}
    for name in {f.name for f in fields(Rules)} & set(tree):
        try:
            tables[name] = _table(tree[name], f"rules.{name}")
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    return Rules(**tables)


def _values(
    section: str, cls: type, readers: Mapping[str, Callable[[Any], Any]]
) -> Callable[..., Any]:
    """Give a reader of a flat section: each key through its own reader, all problems together."""

    def read_section(tree: Mapping[str, Any]) -> Any:
        problems = unknown(tree, set(readers), f"{section}.")
        values: dict[str, Any] = {}
        for key in [k for k in readers if k in tree]:
            try:
                values[{"bucket": "bucket_bytes"}.get(key, key)] = readers[key](tree[key])
            except (ValueError, InputError) as error:
                rule = (
                    error.problems[0].rule if isinstance(error, InputError) else f"is {tree[key]!r}"
                )
                remedy = error.problems[0].remedy if isinstance(error, InputError) else str(error)
                problems.append(Problem(f"{section}.{key}", rule, remedy))
        if problems:
            raise PlanError(problems)
        return cls(**values)

    return read_section


def _one_of(kind: Any) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in get_args(kind):
            raise ValueError(f"choose from {', '.join(get_args(kind))}")
        return str(value)

    return check


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("write a whole number of 1 or more")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def _cut(value: Any) -> tuple[int, ...]:
    if value == "balanced":
        return ()
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        raise ValueError('write "balanced", or the first block of each stage: [0, 9]')
    return tuple(value)


def _bucket(value: Any) -> int:
    return int(parse(f"{value}", "bytes"))


_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "mesh": _mesh,
    "rules": _rules,
    "pipeline": _values("pipeline", Pipeline, {"schedule": _one_of(ScheduleName), "cut": _cut}),
    "memory": _values("memory", Memory, {"recompute": _one_of(Recompute)}),
    "communication": _values("communication", Communication, {"bucket": _bucket}),
    "numerics": _values("numerics", Numerics, {"dtype": _one_of(DType), "compile": _flag}),
    "batch": _values("batch", Batch, dict.fromkeys(("sequences", "micro_batch", "seq"), _positive)),
}


# ── checking ─────────────────────────────────────────────────────────────────────────────────────


def _own_problems(plan: Plan) -> list[Problem]:
    """What is wrong with a plan whatever the model."""
    rules, numbers = list(_rule_problems(plan)), list(_number_problems(plan))
    counted = {"rules.compute.batch", "rules.compute.seq"} & {p.field for p in rules}
    divided = () if numbers or counted else _division_problems(plan)
    return [*rules, *numbers, *divided]


def _rule_problems(plan: Plan) -> Iterator[Problem]:
    """What is wrong with the names that rules use, and with the axes that they put together."""
    if "pp" in dict(plan.mesh.views):
        yield Problem("mesh.views.pp", "pp cuts the chain of blocks and is no view", "rename it")
    yield from _table_problems(plan, "compute", plan.rules.compute, COMPUTE_DIMS)
    for store in Store:
        yield from _table_problems(plan, store.value, plan.rules.storage(store), STORAGE_DIMS)
    known = set(plan.mesh.names)
    compute = {
        d: set(plan.mesh.expand(a for a in axes if a in known)) for d, axes in plan.rules.compute
    }
    yield from _idle_problems(plan, compute)
    for dim in ("seq", "heads", "ff", "vocab"):
        both = compute.get("batch", set()) & compute.get(dim, set())
        if both:
            yield Problem(
                f"rules.compute.{dim}",
                f"{sorted(both)} split batch already, and one tensor has both",
                "use other axes",
            )


def _table_problems(
    plan: Plan, name: str, table: Table, dims: tuple[str, ...]
) -> Iterator[Problem]:
    """What is wrong with each line of a table by itself."""
    mesh, lines = plan.mesh, [dim for dim, _ in table]
    staged = {n for n in mesh.names if n == "pp" or "pp" in mesh.expand([n])}
    fit = [n for n in mesh.names if n not in staged]
    for dim in sorted({d for d in lines if lines.count(d) > 1}):
        yield Problem(f"rules.{name}.{dim}", "two lines split it", "write one")
    for dim, axes in table:
        where = f"rules.{name}.{dim}"
        if dim not in dims:
            near = difflib.get_close_matches(dim, dims, n=1)
            yield Problem(
                where, f"{name} rules cannot split {dim!r}",
                f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(dims)}",
            )  # fmt: skip
        for axis in axes:
            if axis in staged:
                rule = "pp cuts the chain of blocks, not a tensor"
                yield Problem(where, rule if axis == "pp" else f"{rule}, and is in {axis}",
                              "use another axis")  # fmt: skip
            elif axis not in fit:
                yield Problem(where, f"the mesh has no axis {axis!r}", f"choose from {fit}")
        parts = mesh.expand(a for a in axes if a in fit)
        for part in sorted({p for p in parts if parts.count(p) > 1}):
            yield Problem(where, f"{part} splits it twice", f"name {part} once")


def _idle_problems(plan: Plan, compute: Mapping[str, set[str]]) -> Iterator[Problem]:
    """Axes over which ranks would all do the same work.

    A rule for seq divides no matrix product, and a storage rule no work at all.
    """
    busy = {"pp"}.union(*(compute.get(dim, set()) for dim in ("batch", "heads", "ff", "vocab")))
    for axis, extent in plan.mesh.axes:
        if extent > 1 and axis not in busy:
            yield Problem(
                f"mesh.{axis}",
                f"no compute rule for batch, heads, ff or vocab uses it, so {extent} ranks would "
                "do the same work",
                f'add one, such as rules.compute.batch = ["{axis}"], or set {axis} = 1',
            )


def _number_problems(plan: Plan) -> Iterator[Problem]:
    for f in fields(Batch):
        if getattr(plan.batch, f.name) < 1:
            yield Problem(
                f"batch.{f.name}", f"is {getattr(plan.batch, f.name)}, below 1", "use 1 or more"
            )
    if plan.communication.bucket_bytes < 1:
        yield Problem(
            "communication.bucket", f"is {plan.communication.bucket_bytes} B, below 1 B",
            "write 25MiB",
        )  # fmt: skip


def _position_problems(plan: Plan, model: Model) -> Iterator[Problem]:
    if model.rope is None and plan.batch.seq > model.positions:
        yield Problem(
            "batch.seq",
            f"{plan.batch.seq} positions, but the model has learned {model.positions}",
            f"use at most {model.positions}",
        )


def _division_problems(plan: Plan) -> Iterator[Problem]:
    batch, replicas = plan.batch, plan.replicas
    unit = replicas * batch.micro_batch
    if batch.sequences % unit:
        near = max(unit, batch.sequences // unit * unit)
        yield Problem(
            "batch.sequences",
            f"must be divisible by replicas × micro_batch, but {batch.sequences} % ({replicas} × "
            f"{batch.micro_batch}) = {batch.sequences % unit}",
            f"use {near}, or another micro_batch",
        )
    split = plan.mesh.extent(*dict(plan.rules.compute).get("seq", ()))
    if batch.seq % split:
        yield Problem(
            "batch.seq",
            f"must be divisible by the ranks that split it, but {batch.seq} % {split} = "
            f"{batch.seq % split}",
            f"use {max(split, batch.seq // split * split)}, or no rule for seq",
        )


def _pipeline_problems(plan: Plan, model: Model) -> Iterator[Problem]:
    count, cut = len(model.blocks), plan.pipeline.cut
    if plan.stages > count:
        yield Problem(
            "mesh.pp", f"{plan.stages} stages, but the model has {count} blocks",
            f"use at most {count}",
        )  # fmt: skip
    if cut and (
        len(cut) != plan.stages or cut[0] != 0 or list(cut) != sorted(set(cut)) or cut[-1] >= count
    ):
        yield Problem(
            "pipeline.cut",
            f"{list(cut)} is not {plan.stages} ascending block numbers from 0 below {count}",
            'use "balanced"',
        )


def _size_problems(plan: Plan, cluster: Cluster) -> Iterator[Problem]:
    if plan.mesh.size != cluster.devices:
        shape = " × ".join(f"{n} {e}" for n, e in plan.mesh.axes)
        yield Problem(
            "mesh", f"{shape} = {plan.mesh.size} ranks, but there are {cluster.devices}",
            f"change the mesh, or run on {plan.mesh.size} ranks",
        )  # fmt: skip


def _memory_problems(plan: Plan, model: Model, cluster: Cluster) -> Iterator[Problem]:
    resting = resting_bytes(plan, model)
    if resting > cluster.device.memory_bytes:
        yield Problem(
            "mesh",
            f"weights, gradients and optimizer state need {show_bytes(resting)} on a rank, but a "
            f"device has {show_bytes(cluster.device.memory_bytes)}",
            "shard more (rules.parameter.embed), or use more ranks",
        )


def resting_bytes(plan: Plan, model: Model) -> float:
    """Give the bytes of parameters, gradients, master weights and moments on the fullest rank.

    Stages are taken as even shares of the parameters.
    """
    placement = Placement(model, plan.mesh, plan.rules)
    compute, master = DTYPE_BYTES[plan.numerics.dtype], DTYPE_BYTES[plan.numerics.master]
    total = 0
    for parameter in model.parameters:
        count = {}
        for store in Store:
            layout = placement.resting(parameter, store)
            size = 1
            for extent in layout.local(
                placement.rest_shape(parameter, layout), mesh=placement.mesh
            ):
                size *= extent
            count[store] = size
        same = compute == master and count[Store.PARAMETER] == count[Store.OPTIMIZER]
        total += compute * count[Store.PARAMETER] + master * count[Store.GRADIENT]
        total += master * count[Store.OPTIMIZER] * (2 if same else 3)
    return total / plan.stages


def override(plan: Plan, changes: Sequence[tuple[str, Any]]) -> Plan:
    """Give `plan` with dotted keys set: ``("batch.seq", 512)``, ``("mesh.dp", 4)``.

    Raises:
        PlanError: All problems of the keys and values.
    """
    tree = tomllib.loads(plan.to_toml())
    problems = []
    for key, value in changes:
        *path, last = key.split(".")
        at: Any = tree
        for part in path:
            at = at.setdefault(part, {}) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at[last] = value
        else:
            problems.append(Problem(key, "there is no such table", "see the plan's TOML"))
    if problems:
        raise PlanError(problems)
    return read(tree)
