"""The pages, in the order of the navigation."""

from __future__ import annotations

from moalign_dashboards.pages import compare, front, kl, overview, parallel, quality, tuning, users, weights

PAGES = (
    overview.PAGE,
    front.PAGE,
    weights.PAGE,
    parallel.PAGE,
    compare.PAGE,
    kl.PAGE,
    users.PAGE,
    quality.PAGE,
    tuning.PAGE,
)
