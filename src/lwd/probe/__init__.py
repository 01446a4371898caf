"""Stage I: learning the schedule, with any network, latents and loop."""

from lwd.probe.bisection import Bisection, Listed
from lwd.probe.learn import learn
from lwd.probe.outcome import SweepRow
from lwd.probe.probe import Probe
from lwd.probe.search import search
from lwd.probe.settings import LearnSettings
from lwd.probe.stopping import EarlyStop

__all__ = ["Bisection", "EarlyStop", "LearnSettings", "Listed", "Probe", "SweepRow", "learn", "search"]
