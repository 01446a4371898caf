"""Starting a network from another one's weights, also where it has other groups, classes or another grid."""

from lwd.models.start.account import Account
from lwd.models.start.freeze import freeze
from lwd.models.start.source import Giver, read_giver, start_from
from lwd.models.start.times import grown_order
from lwd.models.start.transplant import transplant

__all__ = ["Account", "Giver", "freeze", "grown_order", "read_giver", "start_from", "transplant"]
