"""Methods: how preference weights become policies. A method is one file and one line here."""

from moalign.methods.base import Method, PolicySet
from moalign.methods.dpa import DPA
from moalign.methods.group_dpo import GroupDPO
from moalign.methods.maxmin import MaxMin
from moalign.methods.modpo import MODPO
from moalign.methods.morlhf import MORLHF
from moalign.methods.ric import RiC
from moalign.methods.serving import Selection
from moalign.methods.soups import Soups

__all__ = ["DPA", "GroupDPO", "MODPO", "MORLHF", "MaxMin", "Method", "PolicySet", "RiC", "Selection", "Soups"]
