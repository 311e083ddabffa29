"""Ranges of the address: read strictly, and applied to every axis that has one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from moalign_dashboards.context import Context
from moalign_dashboards.library import Library
from moalign_dashboards.ranges import inside, read_ranges
from moalign_dashboards.state import State

from tests.exact import exact_study


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    root = tmp_path_factory.mktemp("ranges") / "runs"
    exact_study(root, "exact")
    return Library(root)


def context(library: Library, within: str) -> Context:
    return Context(library, State(path="/parallel", options={"within": within}), library.view("exact"), Path("votes"))


def test_what_is_no_range_is_as_if_it_were_absent(library: Library) -> None:
    for text in (
        "",
        "{",
        "7",
        "[]",
        "[" * 5000,
        '{"nobody": [[0, 1]]}',
        '{"kl": 3}',
        '{"kl": [[0]]}',
        '{"kl": []}',
        '{"kl": [["0", 1]]}',
        '{"kl": [[true, 1]]}',
        '{"kl": [[0, 1, 2]]}',
        '{"kl": [[0, 1], 5]}',
    ):
        assert read_ranges(context(library, text)) == {}, text
    found = read_ranges(context(library, '{"kl": [[null, 1.5], [2, null]], "weight vowels": [[0, 1]]}'))
    assert found == {"kl": [(-np.inf, 1.5), (2.0, np.inf)], "weight vowels": [(0.0, 1.0)]}
    assert read_ranges(context(library, '{"kl": [[NaN, Infinity]]}')) == {"kl": [(-np.inf, np.inf)]}


def test_a_policy_is_inside_one_interval_of_every_axis(library: Library) -> None:
    view = library.view("exact").view
    assert view is not None
    low, high = np.quantile(view.kl, [0.3, 0.7])
    wanted = {"kl": [[None, float(low)], [float(high), None]], "vowels": [[0.0, None]]}
    kept = inside(view, read_ranges(context(library, json.dumps(wanted))))
    assert kept.tolist() == [
        bool((kl <= low or kl >= high) and vowels >= 0) for kl, vowels in zip(view.kl, view.values[:, 0], strict=True)
    ]
    assert 0 < kept.sum() < len(view.trials)
