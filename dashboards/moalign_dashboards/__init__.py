"""The dashboard: look at studies in a browser on this machine. It reads the store and draws with the figures."""

from __future__ import annotations

from moalign_dashboards.app import create_app
from moalign_dashboards.serve import Server

__all__ = ["Server", "create_app"]
