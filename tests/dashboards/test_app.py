"""The dashboard without a browser: addresses, reading, refusing strangers, votes, downloads."""

from __future__ import annotations

import csv
import io
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from moalign_dashboards import Server, create_app
from moalign_dashboards.library import Library
from moalign_dashboards.state import State, read_trials
from moalign_dashboards.votes import swapped

from moalign.errors import MoalignError, StoreError
from moalign.figures.script import plotly_script
from tests.exact import WORDS, add, begin, empty_study, exact_study

FORMULA = '=HYPERLINK("http://example.com")'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app") / "runs"
    exact_study(root, "exact", replies=(FORMULA, *WORDS[1:]))
    return root


def client(root: Path, **options):
    return create_app(root, **options).server.test_client()


def test_addresses_are_read_and_written() -> None:
    state = State.read("/front", "?study=a&with=b,c,a&trials=0-2,7&trial=3&x=helpful&trial=3")
    assert state.study == "a" and state.overlays == ("b", "c") and state.selected == {0, 1, 2, 7} and state.trial == 3
    assert state.link(trial=None) == "/front?study=a&with=b,c&trials=0-2,7&x=helpful".replace("b,c", "b,c,a")
    assert "x=" not in state.link("/kl") and "trials=0-2,7" in state.link("/kl")  # options of a page stay on it
    assert State.read("/", "?trial=x&trials=").selected is None
    assert State.read(None, None).path == "/" and State.read("/", "?trial=-1").trial is None
    assert read_trials("~" + "CQ") == {0, 3}  # 0b1001
    assert read_trials("-") == frozenset() and read_trials("~***") == frozenset()
    assert len(read_trials("0-99999999")) == 1 and len(read_trials("0-9999999")) <= 1_000_001


def test_what_is_read_changes_with_the_records_and_not_with_a_sign_of_life(tmp_path: Path) -> None:
    import moalign as ma

    records = empty_study(tmp_path, "live")
    library = Library(tmp_path)
    assert library.view("live").progress == "empty" and library.view("live").view is None
    weights = ma.grid(3, steps=3)
    with records.drive():
        begin(records, weights, 3)
        add(records, 0, weights[0], 3)
        first, view = library.version("live"), library.view("live")
        assert view.progress == "running" and view.count("done") == 1 and view.view is not None
        assert library.version("live") == first and library.view("live") is view
        add(records, 1, weights[1], 3)
        assert library.version("live") != first and library.view("live").count("done") == 2
    assert library.view("live").progress == "interrupted"
    with pytest.raises(StoreError, match="no study 'dead'"):
        library.view("dead")
    assert library.version("dead") == ""


def test_strangers_are_refused(folder: Path) -> None:
    page = client(folder)
    assert page.get("/", headers={"Host": "127.0.0.1:8050"}).status_code == 200
    assert page.get("/", headers={"Host": "localhost"}).status_code == 200
    for host in ("example.com", "127.0.0.1.example.com", "192.168.0.1:8050", "localhost.", "evil@localhost.org"):
        assert page.get("/", headers={"Host": host}).status_code == 403, host
    for origin in ("http://example.com", "null", "https://localhost", "http://localhost:1"):
        answer = page.post("/_dash-update-component", json={}, headers={"Host": "localhost", "Origin": origin})
        assert answer.status_code == 403, origin
    own = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert page.get("/export/exact/front.csv", headers=own).status_code == 403
    policy = page.get("/").headers["Content-Security-Policy"]
    assert (
        "default-src 'none'" in policy
        and "connect-src 'self'" in policy
        and "unsafe-inline" not in policy.split(";")[1]
    )


def test_the_short_plotly_lies_where_dash_looks_for_the_whole_one(folder: Path) -> None:
    page, address = client(folder), "/_dash-component-suites/plotly/package_data/plotly.min.js"
    answer = page.get(address)
    assert answer.text == plotly_script() and answer.mimetype == "text/javascript"
    again = page.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and not again.data and "no-cache" in again.headers["Cache-Control"]
    start = page.get("/")
    assert f'<link rel="preload" as="script" href="{address}">' in start.text
    assert "unsafe-eval" not in start.headers["Content-Security-Policy"]
    with pytest.MonkeyPatch.context() as patch:  # another plotly, and its whole script, which compiles code
        patch.setattr("moalign_dashboards.guard.is_short", lambda: False)
        assert "'self' 'unsafe-eval'" in client(folder).get("/").headers["Content-Security-Policy"]


def test_the_environment_cannot_open_the_port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOST": "0.0.0.0", "PORT": "1", "DASH_DEBUG": "true", "DASH_PROXY": "x::y"}.items():
        monkeypatch.setenv(name, value)
    served = Server(create_app(folder), port=0)
    assert served._server.server_address[0] == "127.0.0.1" and served.address.startswith("http://127.0.0.1:")
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    body = urllib.request.urlopen(served.address, timeout=10).read().decode()
    assert "dev_tools" not in body and "http://" not in body.replace(served.address, "").replace(
        "http://www.w3.org", ""
    )
    with pytest.raises(MoalignError, match="taken"):
        Server(create_app(folder), port=served._server.server_port)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(served.address, headers={"Host": "example.com"}), timeout=10)
    served.close()


def test_downloads_hold_what_is_shown_and_no_formula(folder: Path) -> None:
    page = client(folder)
    rows = list(csv.DictReader(io.StringIO(page.get("/export/exact/front.csv?trials=2,5").text)))
    assert [row["trial"] for row in rows] == ["2", "5"] and {"w_vowels", "vowels", "vowels_se", "kl"} <= set(rows[0])
    content = page.get("/export/exact/front.json?trials=0-1").get_json()
    assert [point["trial"] for point in content["points"]] == [0, 1] and len(content["reference_point"]) == 3
    report = page.get("/export/exact/report.html").text
    assert "<html" in report and "HYPERLINK" in report and "Share chart" not in report.split("<script")[0]
    assert page.get("/export/nothing/front.csv").status_code == 404
    assert "_dash-config" in page.get("/export/..%2f..%2fetc/front.csv").text  # no file: the page itself


def test_votes_lie_outside_the_store(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="never writes to"):
        create_app(folder, votes=folder / "votes")
    page = client(folder, votes=tmp_path / "votes")
    vote = {"study": "exact", "a": 0, "b": 1, "prompt": 2, "sample": 3, "choice": "right"}
    line = page.post("/vote", json=vote).get_json()
    left = 1 if swapped("exact", 0, 1, 2, 3) else 0
    assert line["left"] == left and line["winner"] == 1 - left and line["prompt_index"] == 2
    assert json.loads((tmp_path / "votes" / "exact.jsonl").read_text()) == line
    assert all(swapped("s", 0, 1, p, 0) != swapped("s", 1, 0, p, 0) for p in range(20))  # a side belongs to the trial
    sides = [swapped("s", 0, 1, p, 0) for p in range(200)]
    assert 60 < sum(sides) < 140
    for wrong in ({**vote, "choice": "best"}, {**vote, "b": 0}, {**vote, "a": "0"}, [], {**vote, "prompt": True}):
        assert page.post("/vote", json=wrong).status_code == 400, wrong
    assert page.post("/vote", json={**vote, "study": "../exact"}).status_code == 500
    assert page.post("/vote", json={**vote, "b": 77}).status_code == 500
    assert len((tmp_path / "votes" / "exact.jsonl").read_text().splitlines()) == 1
