"""The cluster: what devices there are, and how they are joined. Data, each with its source."""

from stretto.cluster.device import PRECISIONS, Device, Power, Precision
from stretto.cluster.find import find
from stretto.cluster.fit import Change, Fit, Residual, fit
from stretto.cluster.link import LEVELS, Contention, Level, LevelName
from stretto.cluster.local import local
from stretto.cluster.names import names, of_driver
from stretto.cluster.sample import Sample, SampleKind
from stretto.cluster.toml import accelerator, load, read
from stretto.cluster.value import Cluster, Part
from stretto.cluster.write import dumps

__all__ = [
    "LEVELS",
    "PRECISIONS",
    "Change",
    "Cluster",
    "Contention",
    "Device",
    "Fit",
    "Level",
    "LevelName",
    "Part",
    "Power",
    "Precision",
    "Residual",
    "Sample",
    "SampleKind",
    "accelerator",
    "dumps",
    "find",
    "fit",
    "load",
    "local",
    "names",
    "of_driver",
    "read",
]
