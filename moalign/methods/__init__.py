"""Methods: how preference weights become policies. A method is one file and one line here."""

from moalign.methods.base import Method, PolicySet
from moalign.methods.modpo import MODPO
from moalign.methods.morlhf import MORLHF
from moalign.methods.serving import Selection
from moalign.methods.soups import Soups

__all__ = ["MODPO", "MORLHF", "Method", "PolicySet", "Selection", "Soups"]
