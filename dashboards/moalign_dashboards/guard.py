"""Who may ask: pages that this server gave out itself, on this machine, or elsewhere with the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, abort, redirect, request

from moalign.errors import MoalignError
from moalign.figures.script import is_short

ACCESS: Final = "MOALIGN_ACCESS"  # where the server's configuration keeps it
_SHORTEST: Final = 16  # characters of a token
_HERE: Final = ("127.0.0.1", "localhost", "::1")
_KEPT_SECONDS: Final = 30 * 24 * 3600  # of a cookie


@final
@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the dashboard answers, and to whom.

    Args:
        host: name or address that the server listens on; 0.0.0.0 or :: for all of this machine.
        token: secret that a browser shows once and then keeps as a cookie; None lets in everybody on this machine.

    Raises:
        MoalignError: another host than this machine without a token, or a token that is easily guessed.
    """

    host: str = "127.0.0.1"
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and not self.is_local:
            raise MoalignError(
                f"On {self.host} other machines could read all texts. Give a token as well (moalign dashboard "
                f"--host {self.host} --token new), or stay on 127.0.0.1 and let ssh -L carry the port."
            )
        if self.token is not None and not re.fullmatch(rf"[A-Za-z0-9._~-]{{{_SHORTEST},200}}", self.token):
            raise MoalignError(
                f"The token has {len(self.token)} characters. Take {_SHORTEST} to 200 of A-Z a-z 0-9 . _ ~ - "
                "that nobody guesses, or let one be drawn: --token new."
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the host."""
        address = _address(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def shown(self) -> str:
        """The host as it stands in an address that others can open."""
        address = _address(self.host)
        host = socket.gethostname() if address is not None and address.is_unspecified else self.host
        return f"[{host}]" if ":" in host else host

    @cached_property
    def names(self) -> frozenset[str]:
        """The names in lower case that a page may have been asked for by, besides addresses in digits."""
        own = () if self.is_local else (self.host, socket.gethostname(), socket.getfqdn())
        return frozenset(name.lower() for name in (*_HERE, *own))

    @cached_property
    def cookie(self) -> str:
        """What a browser that showed the token keeps: not the token itself."""
        return hmac.new((self.token or "").encode(), b"moalign dashboard", hashlib.sha256).hexdigest()

    def knows(self, host: str) -> bool:
        """Whether a Host header is this server's. Somebody else's name may lead here, an address in digits cannot."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.names or (not self.is_local and _address(name) is not None)


def protect(server: Flask, script_hashes: Callable[[], list[str]], access: Access) -> None:
    """Refuses foreign hosts and origins with 403, browsers without the token with 401; pages may ask this server only.

    A name of somebody else that leads to this machine (DNS rebinding) carries another Host; a form or script of another
    page carries another Origin.
    """

    server.config[ACCESS] = access

    @server.before_request
    def refuse_strangers() -> None:
        if not access.knows(request.host):
            abort(403, f"This dashboard answers on {' and '.join(sorted(access.names - {'::1'}))} only.")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            abort(403, "Requests from other pages are refused.")
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            if request.method != "GET" or request.headers.get("Sec-Fetch-Mode") != "navigate":
                abort(403, "Requests from other pages are refused.")

    @server.before_request
    def ask_for_the_token() -> object:
        if access.token is None:
            return None
        name = f"moalign-{urlsplit(f'//{request.host}').port or 80}"  # browsers share cookies between ports
        if "token" not in request.args:
            if _same(request.cookies.get(name, ""), access.cookie):
                return None
            abort(401, "Open the address that `moalign dashboard` printed: it holds the token.")
        if not _same(request.args["token"], access.token):
            abort(401, "This token is not valid (any more).")
        rest = [(option, value) for option, value in request.args.items(multi=True) if option != "token"]
        answer = redirect("/" + request.path.lstrip("/") + ("?" + urlencode(rest) if rest else ""), 303)
        answer.set_cookie(name, access.cookie, max_age=_KEPT_SECONDS, httponly=True, samesite="Lax")
        return answer

    compiling = "" if is_short() else "'unsafe-eval' "  # the whole of plotly.js compiles code for its shaders
    content = (
        f"default-src 'none'; script-src 'self' {compiling}{{scripts}}; style-src 'self' 'unsafe-inline'; "
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


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _same(given: str, known: str) -> bool:
    """Compares in a time that does not tell how far they agree."""
    return hmac.compare_digest(given.encode(), known.encode())
