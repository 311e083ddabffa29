"""Methods: how preference weights become policies. A method is one file and one line here."""

from moalign.methods.base import Method, PolicySet, Selection
from moalign.methods.modpo import MODPO

__all__ = ["MODPO", "Method", "PolicySet", "Selection"]
