"""The dashboard: look at studies in a browser. It reads the store and draws with the figures."""

from __future__ import annotations

from moalign_dashboards.app import create_app
from moalign_dashboards.guard import Access
from moalign_dashboards.serve import Server

__all__ = ["Access", "Server", "create_app"]
