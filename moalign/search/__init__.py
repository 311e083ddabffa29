"""Which preference weights to train next: lattices, gaps, linear support, and searches guided by predicted fronts."""

from moalign.search.guided import HypervolumeGuided, OracleGuided
from moalign.search.history import History, Search, Stall, first_round
from moalign.search.spread import Dirichlet, LargestGap, Lattice
from moalign.search.support import OptimisticSupport

__all__ = [
    "Dirichlet",
    "History",
    "HypervolumeGuided",
    "LargestGap",
    "Lattice",
    "OptimisticSupport",
    "OracleGuided",
    "Search",
    "Stall",
    "first_round",
]
