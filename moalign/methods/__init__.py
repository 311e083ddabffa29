"""Methods: how preference weights become policies. A method is one file and one line here."""

from moalign.methods.base import Method, PolicySet
from moalign.methods.cmorl import CMORL
from moalign.methods.directions import Cone, Orthant
from moalign.methods.dpa import DPA
from moalign.methods.group_dpo import GroupDPO
from moalign.methods.maxmin import MaxMin
from moalign.methods.modpo import MODPO
from moalign.methods.morlhf import MORLHF
from moalign.methods.pal import PAL, for_user, spread_mixtures
from moalign.methods.ric import RiC
from moalign.methods.serving import Selection
from moalign.methods.soups import Soups

__all__ = [
    "Cone",
    "CMORL",
    "DPA",
    "GroupDPO",
    "MODPO",
    "MORLHF",
    "MaxMin",
    "Method",
    "Orthant",
    "PAL",
    "PolicySet",
    "RiC",
    "Selection",
    "Soups",
    "for_user",
    "spread_mixtures",
]
