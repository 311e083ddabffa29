"""Who may ask: only pages that this server gave out itself, in a browser on this machine."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Flask, Response, abort, request

_NAMES = ("127.0.0.1", "localhost")


def protect(server: Flask, script_hashes: Callable[[], list[str]]) -> None:
    """Refuses foreign hosts and origins with 403, and forbids pages to ask anything of other machines.

    A name of somebody else that leads to this machine (DNS rebinding) carries another Host; a form or script of another
    page carries another Origin.
    """

    @server.before_request
    def refuse_strangers() -> None:
        if urlsplit(f"//{request.host}").hostname not in _NAMES:
            abort(403, "This dashboard answers on 127.0.0.1 and localhost only.")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            abort(403, "Requests from other pages are refused.")
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            if request.method != "GET" or request.headers.get("Sec-Fetch-Mode") != "navigate":
                abort(403, "Requests from other pages are refused.")

    # plotly compiles its shaders' code, hence 'unsafe-eval'; everything else is limited to this server.
    content = (
        "default-src 'none'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @server.after_request
    def say_what_is_allowed(response: Response) -> Response:
        page = response.mimetype == "text/html" and "Content-Disposition" not in response.headers
        scripts = " ".join(script_hashes()) if page else ""  # known once the first page has been put together
        response.headers["Content-Security-Policy"] = content.format(scripts=scripts)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response
