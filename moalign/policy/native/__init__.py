"""An own forward pass over the frozen weights of a loaded model, for packed rows and stacked adapters.

It computes what the model computes, without copying a weight, for the families listed in `llama` and `gpt2`; every
other model keeps its own forward pass. Two savings over it: prompts and whatever lies below the first adapter are
computed once, and the last block works only for tokens whose state predicts a completion token.
"""

from moalign.policy.native.check import agrees
from moalign.policy.native.model import NativeModel, Trunk, native_model, supports
from moalign.policy.native.projections import Adapters

__all__ = ["Adapters", "NativeModel", "Trunk", "agrees", "native_model", "supports"]
