"""The server: where the app's access says, whatever the environment says; one thread per request."""

from __future__ import annotations

import logging
from typing import final

from dash import Dash
from werkzeug.serving import BaseWSGIServer, make_server

from moalign.errors import MoalignError
from moalign_dashboards.guard import ACCESS, Access

PORT = 8050
_TRIED = 20  # ports after the first, when none was asked for


@final
class Server:
    """Serves an app on the host of its access, 127.0.0.1 unless another was given.

    Args:
        app: from `create_app`.
        port: 0 takes any free one; None the first free one from 8050.

    Raises:
        MoalignError: the port is taken, or the host is not one of this machine.
    """

    def __init__(self, app: Dash, port: int | None = None) -> None:
        self._access: Access = app.server.config[ACCESS]
        self._server = _listen(app, self._access.host, port)

    @property
    def address(self) -> str:
        """Without the token."""
        return f"http://{self._access.shown}:{self._server.server_port}/"

    def link(self, study: str | None = None) -> str:
        """Returns the address to open first: it holds the token, if there is one."""
        options = [f"token={self._access.token}"] if self._access.token else []
        options += [f"study={study}"] if study else []
        return self.address + (f"?{'&'.join(options)}" if options else "")

    def run(self) -> None:
        """Answers until `close` is called or Ctrl-C is pressed."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server.serve_forever()

    def close(self) -> None:
        """Stops answering and gives the port back."""
        self._server.shutdown()
        self._server.server_close()


def _listen(app: Dash, host: str, port: int | None) -> BaseWSGIServer:
    ports = range(PORT, PORT + _TRIED) if port is None else [port]
    for number in ports:
        try:
            return make_server(host, number, app.server, threaded=True)
        except (OSError, SystemExit):  # werkzeug leaves Python when a port is taken
            continue
    asked = f"Port {port} of {host} is" if port is not None else f"The ports {PORT} to {ports[-1]} of {host} are"
    raise MoalignError(f"{asked} taken or not allowed. Choose another one: moalign dashboard --port 9000")
