"""Who may look: everybody on this machine, or whoever shows the token; and what a stranger gets."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path

import pytest
from moalign_dashboards import Access, Server, create_app
from typer.testing import CliRunner

from moalign.cli.app import app as command_line
from moalign.errors import MoalignError
from tests.exact import exact_study

TOKEN = "a-token_of.32~characters-abcdefgh"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access") / "runs"
    exact_study(folder, "exact")
    return folder


def test_other_machines_need_a_token_that_is_not_guessed() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "box.example.org"):
        with pytest.raises(MoalignError, match="--token new"):
            Access(host=host)
        assert not Access(host=host, token=TOKEN).is_local
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert Access(host=host).is_local
    for token in ("", "short", "with a blank in it all", "x" * 201, "ünïcödé-but-long-enough"):
        with pytest.raises(MoalignError, match="16 to 200"):
            Access(token=token)
    assert TOKEN not in Access(token=TOKEN).cookie and Access(token=TOKEN + "x").cookie != Access(token=TOKEN).cookie


def test_hosts_that_are_known() -> None:
    local, all_, named = Access(), Access(host="0.0.0.0", token=TOKEN), Access(host="box.example.org", token=TOKEN)
    assert local.knows("localhost:1") and local.knows("[::1]:8050") and not local.knows("192.168.1.7:8050")
    assert all_.knows("192.168.1.7:8050") and all_.knows("[fe80::1]:80") and all_.knows("127.0.0.1")
    assert named.knows("BOX.example.org:8050") and named.knows("10.0.0.1")
    for access in (local, all_, named):
        for host in ("example.com", "box.example.org.evil.com", "1.2.3.4.evil.com", "", "[::1", "evil.com:8050"):
            assert not access.knows(host), host


def test_a_token_is_shown_once_and_stays_out_of_addresses(root: Path) -> None:
    served = Server(create_app(root, access=Access(host="0.0.0.0", token=TOKEN)), port=0)
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    port = served._server.server_port
    host = {"Host": f"192.0.2.1:{port}"}  # an address in digits that is not this machine's own name

    def ask(path: str, method: str = "GET", body: str | None = None, **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, body=body, headers={**host, **headers})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()

    try:
        for path in ("/", "/front?study=exact", "/_dash-layout", "/export/exact/front.csv", "/assets/dashboard.js"):
            status, _, body = ask(path)
            assert status == 401 and "vowels" not in body and TOKEN not in body, path
        assert ask("/vote", "POST", "{}")[0] == 401
        assert ask("/?token=" + TOKEN[:-1] + "x")[0] == 401
        status, headers, _ = ask(f"//evil.example/front?study=exact&token={TOKEN}&trials=0,1")
        assert status == 303 and headers["Location"] == "/evil.example/front?study=exact&trials=0%2C1"
        kept = headers["Set-Cookie"]
        assert all(word in kept for word in ("HttpOnly", "SameSite=Lax", "Path=/")) and TOKEN not in kept
        cookie = {"Cookie": kept.split(";")[0]}
        assert ask("/", **cookie)[0] == 200 and "vowels" in ask("/export/exact/front.csv", **cookie)[2]
        assert ask("/", Cookie=cookie["Cookie"][:-1] + "!")[0] == 401
        assert ask("/", **cookie, Host="example.com")[0] == 403  # a name of somebody else that leads here
        assert ask("/vote", "POST", "{}", Origin="http://192.0.2.2", **cookie)[0] == 403
        assert served.link("exact").endswith(f":{port}/?token={TOKEN}&study=exact") and TOKEN not in served.address
    finally:
        served.close()
        thread.join()


def test_the_command_refuses_to_open_a_port_to_everybody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    answer = runner.invoke(command_line, ["dashboard", str(root), "--host", "0.0.0.0"])
    assert answer.exit_code == 2 and "--token new" in " ".join(answer.output.split()).replace("│ ", "").replace(
        " │", ""
    )
    answer = runner.invoke(command_line, ["dashboard", str(root), "--host", "0.0.0.0", "--token", "guess"])
    assert answer.exit_code == 2
    seen: list[Server] = []
    monkeypatch.setattr(Server, "run", lambda server: seen.append(server))
    drawn = []
    for _ in range(2):
        answer = runner.invoke(
            command_line, ["dashboard", str(root), "--host", "0.0.0.0", "--port", "0", "--token", "new"]
        )
        assert answer.exit_code == 0, answer.output
        drawn.append(answer.output.split("token=")[1].split()[0])
    assert drawn[0] != drawn[1] and min(map(len, drawn)) >= 32 and "not encrypted" in answer.output
    monkeypatch.setenv("MOALIGN_DASHBOARD_TOKEN", TOKEN)
    answer = runner.invoke(
        command_line, ["dashboard", str(root / "exact"), "--port", "0"]
    )  # the token alone opens nothing
    assert f"http://127.0.0.1:{seen[-1]._server.server_port}/?token={TOKEN}&study=exact" in answer.output
    assert "not encrypted" not in answer.output and answer.exit_code == 0
    for served in seen:
        served._server.server_close()
