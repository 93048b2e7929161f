"""The plan: all that decides what each device does in a step. A frozen value, TOML in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stretto.cluster import Cluster
from stretto.errors import PlanError, Problem
from stretto.model import Model
from stretto.plan import toml
from stretto.plan.check import own_problems, problems_on
from stretto.plan.running import not_run
from stretto.plan.value import Decisions
from stretto.plan.words import AXES, Words, laid_out


@dataclass(frozen=True, slots=True)
class Plan(Decisions):
    """How a model is trained on a mesh: see `Decisions` for its fields."""

    @staticmethod
    def of(
        *, pp: int = 1, dp: int = 1, cp: int = 1, tp: int = 1, ep: int = 1, etp: int = 0,
        zero: int = 0, shard: int = 0, sequence: bool = True, order: Sequence[str] = AXES,
        **parts: Any,
    ) -> Plan:  # fmt: skip
        """Give the plan that the usual words name.

        Args:
            pp: Pipeline ranks.
            dp: Data-parallel replicas.
            cp: Context-parallel ranks, which split the positions of a sequence.
            tp: Tensor-parallel ranks.
            ep: Expert-parallel ranks: `ep` × `etp` of the dp × cp × tp, the inner ones.
            etp: Ranks that split each expert, a divisor of `tp`; 0 for all of `tp`.
            zero: What data-parallel ranks shard: 0 nothing, 1 optimizer state, 2 gradients too, 3
                parameters too (Rajbhandari et al., 2020).
            shard: With `zero`, the ranks that cut a tensor among them, a divisor of dp × cp;
                outside them shards are replicated (hybrid sharding). 0 for all.
            sequence: Whether activations between blocks are split over `tp` too (Korthikanti et
                al., 2022).
            order: The axes, outermost first.
            parts: Other fields of the plan.

        Raises:
            PlanError: Numbers that cannot be.
        """
        inner, data = etp or max(tp, 1), shard or max(dp * cp, 1)
        words = Words(pp, dp, cp, tp, ep, inner, zero, data, sequence)
        mesh, rules = laid_out(words, order=order)
        return Plan(mesh, rules, **parts)

    def to_toml(self, *, model: str = "") -> str:
        """Give the plan as the TOML that `from_toml` reads.

        Args:
            model: For which it was made: a preset, or a path from the file; empty to leave it open.
        """
        return toml.text_of(self, model=model)

    @staticmethod
    def from_toml(text: str) -> Plan:
        """Read a plan.

        Raises:
            PlanError: All problems: broken TOML, unknown keys, wrong types, impossible values.
        """
        return read(toml.tree_of(text))

    def check(self, model: Model, cluster: Cluster | None = None) -> tuple[Problem, ...]:
        """Give all that makes the plan impossible for `model` on `cluster`.

        Args:
            model: What is trained.
            cluster: What it is trained on; None to check all but the devices.
        """
        return problems_on(self, model, cluster)

    def unsupported(self, model: Model) -> tuple[Problem, ...]:
        """Give all that the plan asks for and the runtime does not run yet.

        Args:
            model: What is trained.
        """
        return not_run(self, model)

    def obstacles(self, model: Model, cluster: Cluster | None = None) -> tuple[Problem, ...]:
        """Give all that keeps the plan from running: what is impossible and what is not run yet.

        Args:
            model: What is trained.
            cluster: What it is trained on; None to check all but the devices.
        """
        return (*self.check(model, cluster), *self.unsupported(model))


def read(tree: Mapping[str, Any]) -> Plan:
    """Give the plan that a parsed TOML tree describes.

    Raises:
        PlanError: All problems of the tree.
    """
    parts, problems = toml.parts_of(tree)
    if problems:
        lost = (set(Plan.__dataclass_fields__) & set(tree)) - set(parts)
        rest = () if lost & {"mesh", "rules", "batch"} else own_problems(Plan(**parts))
        raise PlanError([*problems, *rest])
    return Plan(**parts)


def override(plan: Plan, changes: Sequence[tuple[str, Any]]) -> Plan:
    """Give `plan` with dotted keys set: ``("batch.seq", 512)``, ``("mesh.dp", 4)``.

    Raises:
        PlanError: All problems of the keys and values.
    """
    return read(toml.changed(toml.tree_of(plan.to_toml()), changes))
