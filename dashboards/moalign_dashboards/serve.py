"""The server: on 127.0.0.1 whatever the environment says, one thread per request."""

from __future__ import annotations

import logging
from typing import final

from dash import Dash
from werkzeug.serving import BaseWSGIServer, make_server

from moalign.errors import MoalignError

HOST = "127.0.0.1"
PORT = 8050
_TRIED = 20  # ports after the first, when none was asked for


@final
class Server:
    """Serves an app on 127.0.0.1.

    Args:
        app: from `create_app`.
        port: 0 takes any free one; None the first free one from 8050.

    Raises:
        MoalignError: the port is taken.
    """

    def __init__(self, app: Dash, port: int | None = None) -> None:
        self._server = _listen(app, port)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self._server.server_port}/"

    def run(self) -> None:
        """Answers until `close` is called or Ctrl-C is pressed."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server.serve_forever()

    def close(self) -> None:
        """Stops answering and gives the port back."""
        self._server.shutdown()
        self._server.server_close()


def _listen(app: Dash, port: int | None) -> BaseWSGIServer:
    ports = range(PORT, PORT + _TRIED) if port is None else [port]
    for number in ports:
        try:
            return make_server(HOST, number, app.server, threaded=True)
        except (OSError, SystemExit):  # werkzeug leaves Python when a port is taken
            continue
    asked = f"Port {port} is" if port is not None else f"The ports {PORT} to {PORT + _TRIED - 1} are"
    raise MoalignError(f"{asked} taken or not allowed. Choose another one: moalign dashboard --port 9000")
