"""The report: complete in one file, inert whatever the texts say, and written all at once."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from moalign.figures import OracleCurve
from moalign.figures.report import write_report
from moalign.figures.script import asset, plotly_script
from moalign.front import Front, Point

HOSTILE = "<script>alert(1)</script> </script> [/bold] =HYPERLINK( \x1b[31m <img src=x onerror=alert(2)> {{ 7*7 }} ‮"


class Page(HTMLParser):
    """Elements, attributes, and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "link", "img"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make_front(name: str = "harmless", study: str = "demo", **fields) -> Front:
    points = tuple(
        Point(
            trial=trial, weights=np.array([w, 1 - w]), values=np.array([w, 1 - w * w]),
            standard_errors=np.array([0.01, np.nan]), kl=kl, kl_standard_error=0.1, columns={"mean_tokens": 31.0},
            feasible=trial != 9,
        )
        for trial, w, kl in ((3, 0.2, 1.0), (5, 0.6, float("nan")), (9, 0.9, 4.0))
    )  # fmt: skip
    reference = Point(
        trial=-1, weights=np.zeros(0), values=np.zeros(2), standard_errors=np.zeros(2), kl=0.0, kl_standard_error=0.0
    )
    defaults = {"objectives": ("helpful", name), "reference_point": np.full(2, -0.1), "reference": reference}
    return Front(study=study, points=points, **(defaults | fields))


def make_oracle() -> OracleCurve:
    weights = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    return OracleCurve(weights=weights, values=weights + 1, kl=np.ones(3))


def write(path: Path, front: Front | None = None, **fields) -> Page:
    defaults = {"title": "Report", "config": {"seed": 7}, "generations": {}}
    return Page(
        write_report(path, make_front() if front is None else front, **(defaults | fields)).read_text(encoding="utf-8")
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "report.html"


def test_headline_table_and_sections(path: Path) -> None:
    """(0.2, .96) and (.6, .64) are feasible: above (-.1,-.1) they dominate .3 * 1.06 + .4 * .74 = .614.

    The oracle points (1,2), (1.5,1.5), (2,1) dominate 1.1 * 2.1 + .5 * 1.6 + .5 * 1.1 = 3.66, of which that is 16.8%.
    """
    page = write(path, oracle=make_oracle(), summary={"wall time": "3 min", "tokens": 1200.0}, notes=["Look here."])
    text = path.read_text(encoding="utf-8")
    assert set(page.texts["dt"]) >= {"Non-dominated policies", "Hypervolume", "Reference point", "wall time", "tokens"}
    for part in ("2 of 3", "0.614", "1 outside the limits", "16.8%", "no interval", "3 min", "1200", "Look here."):
        assert part in text
    assert "helpful −0.1, harmless −0.1" in page.texts["dd"]
    sections = "Front, Preference weights, Hypervolume, Reward against KL, Policies, What ran, Texts of each policy"
    assert page.texts["h2"] == sections.split(", ")
    assert "0.200 ± 0.010" in page.texts["td"] and "0.96" in page.texts["td"]
    assert [a["href"] for a in page.all("a") if "policy" in a["href"]] == ["#policy-3", "#policy-5", "#policy-9"]


def test_interval_names_its_prompts(path: Path) -> None:
    front = make_front()
    noise = np.random.default_rng(0).standard_normal((3, 16, 2)) * 0.05
    prompts = front.F[:, None] + noise - noise.mean(axis=1, keepdims=True)
    page = write(path, make_front(prompt_values=prompts))
    assert "95% bootstrap over 16 prompts" in page.texts["dd"]


def test_nested_configuration_is_a_flat_table(path: Path) -> None:
    page = write(path, config={"method": {"name": "MODPO", "beta": 0.1, "extra": {}}, "tags": ["a"]})
    assert {"method.name", "method.beta", "method.extra", "tags"} <= set(page.texts["th"])
    assert {"MODPO", "0.1", "{}", "a"} <= set(page.texts["td"])
    config = {
        "objectives": [{"name": "calm", "scale": 2.0, "@code": "f" * 64}, {"name": "kind", "scale": None}],
        "w": [[0.5], [1 / 3]],
    }
    page = write(path, config=config)
    assert {"objectives.calm.scale", "objectives.kind.scale"} <= set(page.texts["th"]) and "f" * 64 not in page.texts[
        "td"
    ]
    assert {"2", "–", "0.5; 0.333333"} <= set(page.texts["td"])


def test_hostile_strings_are_inert_everywhere(path: Path) -> None:
    front = make_front(HOSTILE, study=HOSTILE)
    row = {"prompt": HOSTILE, "response": HOSTILE, "rewards": {HOSTILE: 1.0}, "kl": 1.0, "tokens": 3, "finished": True}
    page = write(
        path, front, title=HOSTILE, config={HOSTILE: {HOSTILE: HOSTILE}}, generations={3: [row]},
        summary={HOSTILE: HOSTILE}, notes=[HOSTILE],
    )  # fmt: skip
    text = path.read_text(encoding="utf-8")
    written = HOSTILE.replace("\x1b", "\\x1b").replace("‮", "\\u202e")
    assert not page.all("img") and "\x1b" not in text and "‮" not in text
    assert page.texts["pre"] == [written, written] and page.texts["h1"] == page.texts["title"] == [written]
    assert "{{ 7*7 }}" in page.texts["pre"][0]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert sum(attributes.get("type") is None for attributes in page.all("script")) == 2
    for script, attributes in zip(page.texts["script"], page.all("script"), strict=True):
        if attributes.get("type") == "application/json":
            json.loads(script)
            assert "<" not in script and ">" not in script and "&" not in script


def test_the_file_asks_nobody_for_anything(path: Path) -> None:
    page = write(path, oracle=make_oracle())
    fetching = {"src", "srcset", "action", "poster", "data", "formaction", "ping", "background"}
    for tag, attributes in page.elements:
        assert not fetching & attributes.keys() and tag not in ("link", "iframe", "object", "base", "img")
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page.texts["style"][0] and "@import" not in page.texts["style"][0]


def test_content_policy_admits_exactly_the_two_scripts(path: Path) -> None:
    page = write(path)
    scripts = [t for t, a in zip(page.texts["script"], page.all("script"), strict=True) if a.get("type") is None]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests and "default-src 'none'" in policy
    assert "unsafe-eval" not in policy and "http" not in policy
    assert scripts[0] == plotly_script() and len(path.read_text(encoding="utf-8")) < len(scripts[0]) + 300_000


def test_script_puts_no_data_into_markup() -> None:
    script = asset("report.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|XMLHttp", script)


def test_figures_carry_trials_and_no_cloud_button(path: Path) -> None:
    page = write(path)
    embedded = {
        a["id"]: json.loads(t) for t, a in zip(page.texts["script"], page.all("script"), strict=True) if "id" in a
    }
    assert embedded["settings"]["config"]["showSendToCloud"] is False
    assert {row[0] for trace in embedded["front-1"]["data"] for row in trace.get("customdata", [])} == {3, 5, 9}
    assert [a["data-figure"] for a in page.all("div") if "data-figure" in a] == [
        "front-1", "weights-1", "weights-2", "history-1", "kl-1",
    ]  # fmt: skip


def test_long_lists_of_texts_are_folded(path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response": f"r{i}"} for i in range(14)]
    page = write(path, generations={5: rows, 3: rows[:10]})
    assert page.texts["pre"].count("p13") == 1 and page.texts["pre"].count("p9") == 2
    folded = [text for text in page.texts["summary"] if "Show all" in text]
    assert folded == ["Show all 14 texts"]


def test_rows_may_lack_anything(path: Path) -> None:
    row = {"response": "", "rewards": None, "finished": False}
    page = write(path, generations={3: [row, {"prompt": "x", "response": "y", "rewards": {"helpful": float("nan")}}]})
    assert page.texts["pre"] == ["", "(empty)", "x", "y"]
    text = path.read_text(encoding="utf-8")
    assert "cut off at the length limit" in text and "helpful –" in text
    assert text.count("No texts were recorded") == 2


def test_an_unattained_reference_point_is_a_note_not_a_failure(path: Path) -> None:
    write(path, make_front(reference_point=np.full(2, 5.0)))
    assert "The hypervolume is 0, because no point exceeds" in html.unescape(path.read_text(encoding="utf-8"))


def test_an_empty_front_still_has_a_report(path: Path) -> None:
    page = write(path, Front(study="s", objectives=("a", "b"), points=(), reference_point=np.zeros(2)))
    assert "0 of 0" in page.texts["dd"]


def test_the_same_report_twice_is_the_same_file(path: Path, tmp_path: Path) -> None:
    write(path), write(tmp_path / "again.html")
    assert path.read_bytes() == (tmp_path / "again.html").read_bytes()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path)
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(path, make_front(), title="New", config={}, generations={})
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["report.html"]


CLICK = """
window.addEventListener("load", () => setTimeout(() => {
  const holder = document.querySelector('[data-figure="front-1"]');
  const layout = holder._fullLayout;
  const box = holder.querySelector(".nsewdrag").getBoundingClientRect();
  const [x, y] = [box.left + layout.xaxis.d2p(0.6), box.top + layout.yaxis.d2p(0.64)];
  const at = { bubbles: true, button: 0, clientX: x, clientY: y };
  const target = document.elementFromPoint(at.clientX, at.clientY);
  target.dispatchEvent(new MouseEvent("mousemove", at));
  setTimeout(() => {
    target.dispatchEvent(new MouseEvent("mousedown", at));
    document.dispatchEvent(new MouseEvent("mouseup", at));
  }, 300);
}, 1500));
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the chromium browser")
def test_a_click_in_a_browser_opens_the_texts_of_the_policy(path: Path) -> None:
    """The content policy is lifted in a copy only, for the script that moves the mouse."""
    write(path, generations={5: [{"prompt": "p", "response": "r"}]})
    text = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))
    path.write_text(text.replace("</body>", f"<script>{CLICK}</script></body>"), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--virtual-time-budget=8000", "--window-size=1300,1200"]
    dom = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    opened = re.findall(r"<details[^>]*>", dom.stdout)
    assert [("open" in tag, "chosen" in tag) for tag in opened] == [(False, False), (True, True), (False, False)]


def test_the_widget_of_a_front_is_one_page_that_asks_nothing() -> None:
    """Numbers only, as of a front that was read from a table; names are hostile."""
    points = tuple(
        Point(
            trial=n, weights=np.array([n / 2, 1 - n / 2]), values=np.array([n, 2.0 - n]), standard_errors=np.zeros(2),
            kl=0.5, kl_standard_error=0.1,
        )
        for n in range(3)
    )  # fmt: skip
    front = Front(study="<b>s", objectives=("</script><i>", "b"), points=points, reference_point=np.array([-1.0, -1.0]))
    widget = front.widget(height=400)
    body = widget.page.replace(plotly_script(), "")
    assert "<b>s" not in body and "<i>" not in body and "://" not in body
    assert body.count("<section data-trial=") == 3 and "default-src &#39;none&#39;" in body
    frame = widget._repr_html_()
    assert 'sandbox="allow-scripts allow-downloads"' in frame and "height:400px" in frame
    assert html.unescape(frame.split('srcdoc="')[1].split('"')[0]) == widget.page
    assert "page=" not in repr(widget)
