"""The observers by the name of what they observe. A new kind is one class and one entry here."""

from collections.abc import Callable

from titan_aioli.data.loader import MixtureLoader
from titan_aioli.measure.alignment import AlignmentObserver
from titan_aioli.measure.excess import ExcessObserver
from titan_aioli.measure.gradients import GradientObserver
from titan_aioli.measure.held_out import HeldOut
from titan_aioli.measure.host import Host
from titan_aioli.measure.observer import Observer, Settings, TrainObserver, ValidationObserver

OBSERVERS: dict[str, Callable[[Host, HeldOut, MixtureLoader, Settings], Observer]] = {
    "nothing": Observer,
    "validation": ValidationObserver,
    "train": TrainObserver,
    "excess": ExcessObserver,
    "gradients": GradientObserver,
    "alignment": AlignmentObserver,
}
"""An observer's constructor takes the host, the held-out sets, the loader and the settings."""
