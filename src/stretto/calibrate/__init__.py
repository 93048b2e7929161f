"""Attribution that learns: a cluster's constants fitted to what a run recorded."""

from stretto.calibrate.constant import Constant, changed, constants
from stretto.calibrate.evidence import Evidence, evidence
from stretto.calibrate.fit import Calibration, Change, calibrate
from stretto.calibrate.sample import Sample

__all__ = [
    "Calibration",
    "Change",
    "Constant",
    "Evidence",
    "Sample",
    "calibrate",
    "changed",
    "constants",
    "evidence",
]
