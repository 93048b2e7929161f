"""The constants of a cluster's file that a run can tell of, by the names that they have there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from stretto.cluster import Cluster, Device, Level
from stretto.cluster.keys import DEVICE as _KEYS
from stretto.cost.stacks import own
from stretto.units import Quantity

DEVICE: Mapping[str, float] = MappingProxyType(
    {"efficiency": 0.5, "memory_bandwidth": 0.3, "launch": 0.7}
)
LEVEL: Mapping[str, float] = MappingProxyType({"efficiency": 0.7, "latency": 1.5})
SOFTWARE: Mapping[str, float] = MappingProxyType(
    {
        "attention": 0.5,
        "attention_backward": 0.2,
        "pointwise": 0.3,
        "pointwise_backward": 0.3,
        "loss_bytes": 0.4,
        "optimizer_bytes": 0.5,
        "collective_s": 1.0,
        "data_overlap": 0.3,
        "gather_overlap": 0.3,
        "contention": 0.5,
        "step_s": 2.0,
    }
)
"""How far off each constant is believed to be: the standard deviation of its logarithm."""

_SHARES = ("data_overlap", "gather_overlap")
_LEAST_S = 1e-9  # a latency of 0 has no logarithm
_SPELT: Mapping[Quantity | None, float] = MappingProxyType(
    {"s": 1e-6, "bytes_per_s": 1e9, "flops_per_s": 1e9, None: 1.0}
)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number that times depend on.

    Attributes:
        name: As in the file: ``efficiency.float32``, ``memory_bandwidth``, ``launch``,
            ``node.efficiency``, ``node.latency``, ``software.attention``.
        value: Its value, in SI units.
        deviation: How far off it is believed to be: the standard deviation of its logarithm.
        most: What it can be at most.
        prior: What it was before any run told of it; None for its value.
    """

    name: str
    value: float
    deviation: float
    most: float = math.inf
    prior: float | None = None


def constants(cluster: Cluster, *, dtype: str) -> tuple[Constant, ...]:
    """Give the constants that a run in a precision can tell of.

    Args:
        cluster: Of one kind of device.
        dtype: The precision of its products.

    Raises:
        InputError: The cluster states constants that no software has.
    """
    every = (*_of_device(cluster.device, dtype), *_of_links(cluster), *_of_software(cluster))
    told, now = dict(cluster.prior), stated(cluster)

    def before(name: str) -> float | None:
        """Give what a constant was; a share, as one of the peak as that is now."""
        peak = peak_of(name)
        if name not in told and peak not in told:
            return None
        of = told.get(peak, now[peak]) / now[peak] if peak in now else 1.0
        return max(told.get(name, now[name]) * of, _LEAST_S)

    return tuple(replace(one, prior=before(one.name)) for one in every)


def peak_of(name: str) -> str:
    """Give what a share is of: a run tells the product of both. Of all else, nothing's name."""
    if name.startswith("efficiency."):
        return name.replace("efficiency.", "peak.")
    level, _, last = name.rpartition(".")
    return f"{level}.one_way_bandwidth" if last == "efficiency" else ""


def _of_device(device: Device, dtype: str) -> Iterator[Constant]:
    shares = dict(device.efficiency)
    for name in [dtype] if dtype in shares else shares:
        yield Constant(f"efficiency.{name}", shares[name], DEVICE["efficiency"])
    bandwidth = device.memory_bytes_per_s
    yield Constant("memory_bandwidth", bandwidth, DEVICE["memory_bandwidth"])
    if device.launch_s:
        yield Constant("launch", device.launch_s, DEVICE["launch"])


def _of_links(cluster: Cluster) -> Iterator[Constant]:
    for level in cluster.levels:
        latency_s = max(level.latency_s, _LEAST_S)
        yield Constant(f"{level.name}.efficiency", level.efficiency, LEVEL["efficiency"])
        yield Constant(f"{level.name}.latency", latency_s, LEVEL["latency"])


def _of_software(cluster: Cluster) -> Iterator[Constant]:
    stack = own(cluster)
    for name, deviation in SOFTWARE.items():
        most = 1.0 if name in _SHARES else math.inf
        if value := float(getattr(stack, name)):
            yield Constant(f"software.{name}", value, deviation, most)


def quantity(name: str) -> Quantity | None:
    """Give what a constant is measured in; None for a share or a factor."""
    last = name.rpartition(".")[2]
    if name.startswith("peak."):
        return "flops_per_s"
    if last in ("memory_bandwidth", "one_way_bandwidth"):
        return "bytes_per_s"
    return "s" if last in ("launch", "latency") or last.endswith("_s") else None


def rounded(name: str, value: float) -> float:
    """Give a constant with no more digits, as a file spells it, than a measurement can have."""
    unit = _SPELT[quantity(name)]
    return float(f"{value / unit:.4g}") * unit


def changed(cluster: Cluster, values: Mapping[str, float]) -> Cluster:
    """Give a cluster with other constants.

    A share above 1 says that a peak was stated too low: the peak rises, and the share is 1.

    Args:
        cluster: Of one kind of device.
        values: New values by name; see `Constant`.
    """
    (part,) = cluster.parts
    device = _device(part.device, values)
    prefix = "software."
    told = {n.removeprefix(prefix): v for n, v in values.items() if n.startswith(prefix)}
    return replace(
        cluster,
        parts=(replace(part, device=device),),
        levels=tuple(_level(level, values) for level in cluster.levels),
        software=tuple((dict(cluster.software) | told).items()),
    )


def _device(device: Device, values: Mapping[str, float]) -> Device:
    peaks, shares = dict(device.flops_per_s), dict(device.efficiency)
    for name in shares:
        share = values.get(f"efficiency.{name}", shares[name])
        peaks[name], shares[name] = _within(peaks[name], share)
    return replace(
        device,
        flops_per_s=tuple(peaks.items()),
        efficiency=tuple(shares.items()),
        memory_bytes_per_s=values.get("memory_bandwidth", device.memory_bytes_per_s),
        launch_s=values.get("launch", device.launch_s),
    )


def _level(level: Level, values: Mapping[str, float]) -> Level:
    share = values.get(f"{level.name}.efficiency", level.efficiency)
    bytes_per_s, efficiency = _within(level.bytes_per_s, share)
    latency_s = values.get(f"{level.name}.latency", level.latency_s)
    return replace(level, bytes_per_s=bytes_per_s, efficiency=efficiency, latency_s=latency_s)


def _within(peak: float, share: float) -> tuple[float, float]:
    """Give a peak and the share of it that is reached, at most all of it."""
    return (peak * share, 1.0) if share > 1 else (peak, share)


def stated(cluster: Cluster) -> dict[str, float]:
    """Give all that `changed` may change, by name, peaks and bandwidths too."""
    device, stack = cluster.device, own(cluster)
    found = {f"peak.{name}": value for name, value in device.flops_per_s}
    found |= {f"efficiency.{name}": value for name, value in device.efficiency}
    found |= {"memory_bandwidth": device.memory_bytes_per_s, "launch": device.launch_s}
    for level in cluster.levels:
        found[f"{level.name}.one_way_bandwidth"] = level.bytes_per_s
        found[f"{level.name}.efficiency"] = level.efficiency
        found[f"{level.name}.latency"] = level.latency_s
    return found | {f"software.{name}": float(getattr(stack, name)) for name in SOFTWARE}


def as_file(cluster: Cluster, values: Mapping[str, float], *, source: str) -> Cluster:
    """Give a cluster with other constants as a file has them: few digits, and where from.

    Args:
        cluster: Of one kind of device.
        values: New values by name; see `Constant`.
        source: What it says of them: ``calibrated …``.
    """
    before = stated(cluster)
    after = changed(cluster, {name: rounded(name, value) for name, value in values.items()})
    (part,) = after.parts
    names = {name for name, value in stated(after).items() if value != before[name]}
    heads = {name.split(".")[0] for name in names}
    sources = dict(part.device.sources) | dict.fromkeys(heads & _KEYS.keys(), source)
    device = replace(
        part.device,
        flops_per_s=tuple(
            (n, rounded("peak.", v) if f"peak.{n}" in names else v)
            for n, v in part.device.flops_per_s
        ),
        sources=tuple((key, sources[key]) for key in _KEYS if key in sources),
    )
    levels = (
        replace(
            level,
            bytes_per_s=rounded("one_way_bandwidth", level.bytes_per_s),
            source=_joined(level.source, source),
        )
        if level.name in heads
        else level
        for level in after.levels
    )
    prior = {name: before[name] for name in before if name in names and before[name] > 0}
    return replace(
        after,
        parts=(replace(part, device=device),),
        levels=tuple(levels),
        prior=tuple((prior | dict(cluster.prior)).items()),
    )


def _joined(before: str, source: str) -> str:
    """Give two sources in one text; a calibration replaces the one before."""
    kept = [one for one in before.split("; ") if one and not one.startswith("calibrated ")]
    return "; ".join([*kept, source])
