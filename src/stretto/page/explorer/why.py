"""Why a plan of the front wins, and what it gives up against its neighbours, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stretto.cost import Number
from stretto.page.explorer.plans import BYTES, TIMES, Told
from stretto.quantities import change, energy, money, seconds, size
from stretto.search import ERROR, PARTS, USES, Objective, line

_SLIGHT = 0.1  # of the largest difference: too little to name
_NAMED = 3  # parts


def wins(plan: Told, objective: Objective, *, among: int, rival: Told | None) -> Iterator[str]:
    """Say why no other plan is better.

    Args:
        plan: A plan of the front.
        objective: What is best, which says against what time is drawn.
        among: How many plans take no more than it of what else is to be small.
        rival: The fastest of them that is of another kind, if there is one.
    """
    limit = amount(plan, objective)
    if among == 1:
        yield f"No other plan {_TAKES[objective]} as little: {limit}."
    else:
        yield f"It is the fastest of the {among:,} plans that {_TAKE[objective]} at most {limit}."
    if rival is None:
        yield "No plan of another kind does with that."
    else:
        kind = rival.tree["kind"]
        longer = rival.step_s - plan.step_s
        yield (
            f"The fastest of another kind, {kind}{_fleet(rival, plan)}, takes {seconds(longer)} "
            f"longer ({change(rival.step_s / plan.step_s)}): {times(rival, plan)}."
        )
        if rival.step_s < plan.step_s * (1 + ERROR):
            yield f"That is within the ±{ERROR * 100:.0f} % of the estimate: measure both."


def gives(
    plan: Told, objective: Objective, *, faster: Told | None, smaller: Told | None
) -> Iterator[str]:
    """Say what it gives up against its neighbours on the front.

    Args:
        plan: A plan of the front.
        objective: What is best, which says against what time is drawn.
        faster: The next that is faster, if there is one.
        smaller: The next that takes less of what else is to be small, if there is one.
    """
    if faster is None:
        yield "No plan that fits is faster."
    else:
        more = amount(faster, objective, minus=plan)
        yield (
            f"The next faster saves {seconds(plan.step_s - faster.step_s)} "
            f"({change(faster.step_s / plan.step_s)}) for {more} more"
            f"{_because(faster, plan, objective)}, with {_words(faster, plan)}."
        )
    if smaller is None:
        yield f"No plan that is worth its time {_TAKES[objective]} less."
    else:
        less = amount(plan, objective, minus=smaller)
        later, ratio = smaller.step_s - plan.step_s, smaller.step_s / plan.step_s
        yield (
            f"The next that {_TAKES[objective]} less saves {less} and takes "
            f"{seconds(later)} longer ({change(ratio)}): "
            f"{times(smaller, plan)}; with {_words(smaller, plan)}."
        )


def longer(plan: Told, best: Told) -> str:
    """Say how much longer a plan takes than the best."""
    more = plan.step_s - best.step_s
    return (
        f"It takes {seconds(max(0.0, more))} longer than the best "
        f"({change(plan.step_s / best.step_s)}): {times(plan, best)}."
    )


def equals(plan: Told, winner: Told, objective: Objective) -> str:
    """Say why the best plan is not on the front: another is as good, and better in what is left."""
    return (
        f"No plan {_BETTER[objective]}. Another is just as good at that and {_TAKES[objective]} "
        f"less ({amount(winner, objective)}, {seconds(winner.step_s)}), with "
        f"{_words(winner, plan)}; this one is called the best because it is simpler."
    )


def gains(plan: Told, best: Told, *, limit_bytes: float) -> str:
    """Say what the best plan saves against one that somebody has.

    Args:
        plan: What somebody has.
        best: The best.
        limit_bytes: The memory of a device.
    """
    if plan.memory_bytes > limit_bytes:
        need, limit = size(plan.memory_bytes), size(limit_bytes)
        return f"It needs {need}, but a device has {limit}: the best plan is the fastest that fits."
    saved = plan.step_s - best.step_s
    if saved <= 0:
        return "No plan that was tried is faster."
    return (
        f"The best plan saves {seconds(saved)} of {seconds(plan.step_s)}, which is "
        f"{change(plan.step_s / best.step_s)} tokens/s: {times(best, plan)}; with "
        f"{_words(best, plan)}."
    )


def times(plan: Told, than: Told) -> str:
    """Give the parts of a step of which a plan has most more than another, or less."""
    return _differences(plan.time - than.time, [PARTS[n] for n in TIMES], seconds)


def amount(plan: Told, objective: Objective, *, minus: Told | None = None) -> str:
    """Give what else is to be small, or by how much it differs from another plan's."""
    match objective:
        case "time" | "memory-headroom":
            return size(plan.memory_bytes - (minus.memory_bytes if minus else 0.0))
        case "cost":
            return money(plan.rates["money"] - (minus.rates["money"] if minus else 0.0))
        case "energy":
            return energy(plan.rates["energy_j"] - (minus.rates["energy_j"] if minus else 0.0))


_TAKES: dict[Objective, str] = {
    "time": "needs",
    "memory-headroom": "needs",
    "cost": "costs",
    "energy": "takes",
}
_BETTER: dict[Objective, str] = {
    "time": "is faster",
    "memory-headroom": "leaves more memory in as little time",
    "cost": "costs less",
    "energy": "takes less energy",
}
_TAKE: dict[Objective, str] = {name: verb.removesuffix("s") for name, verb in _TAKES.items()}


def _because(plan: Told, than: Told, objective: Objective) -> str:
    """Give what fills the memory that a plan needs more; nothing of money and energy."""
    match objective:
        case "cost" | "energy":
            return ""
        case "time" | "memory-headroom":
            difference, names = plan.memory - than.memory, [USES[name] for name in BYTES]
            return f" ({_differences(difference, names, size)})"


def _differences(values: Number, names: Sequence[str], show: Callable[[float], str]) -> str:
    """Give the largest differences."""
    pairs = sorted(zip(map(float, values), names, strict=True), key=lambda pair: -abs(pair[0]))
    large = [(v, name) for v, name in pairs[:_NAMED] if v and abs(v) > _SLIGHT * abs(pairs[0][0])]
    told = [f"{'+' if value > 0 else '−'}{show(abs(value))} {name}" for value, name in large]
    return ", ".join(told) or "no part differs"


def _words(plan: Told, beside: Told) -> str:
    if plan.row is None:
        return str(plan.tree["words"])
    return line(plan.row, beside=beside.row) + _fleet(plan, beside)


def _fleet(plan: Told, beside: Told) -> str:
    return f" on {plan.devices:,} devices" if plan.devices != beside.devices else ""
