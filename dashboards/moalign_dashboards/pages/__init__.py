"""The pages, in the order of the navigation."""

from __future__ import annotations

from moalign_dashboards.pages import front, kl, overview, parallel, weights

PAGES = (overview.PAGE, front.PAGE, weights.PAGE, parallel.PAGE, kl.PAGE)
