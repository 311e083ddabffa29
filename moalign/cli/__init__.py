"""The command line: `moalign demo`, `moalign run studies/NAME.py`, and what reads a folder of results."""

from moalign.cli.app import app as app
from moalign.cli.app import main as main

__all__ = ["app", "main"]
