"""What every request passes before anything else is done with it, and every answer on its way out.

In: the host it names, how often its client asks, its token, the page it comes from, the size and the pace of its body.
Out: headers that keep browsers from running, framing or sharing what they should not. An unexpected error is logged
with its traceback, and answered with one line.

    400  a Host that is not ours: a name that an attacker points to this machine (DNS rebinding)
    429  too many requests of one client
    401  no token where one is needed
    403  a page elsewhere wants to use what only this one may
    413  a body that is too large, stated or not; 408: one that does not come
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from urllib.parse import parse_qsl, urlencode, urlsplit

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmsearch.server.page import CONTENT_SECURITY_POLICY
from mmsearch.server.problems import INTERNAL, ProblemError, problem
from mmsearch.server.settings import API, LOOPBACK_NAMES, ServerSettings

_log = logging.getLogger("mmsearch.server")

COOKIE = "mmsearch_token"
_OPEN = (f"{API}/health", f"{API}/ready")  # whoever watches over the server has no token
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class _RefusedBodyError(Exception):
    """Raised where the application reads the body; `Guard` answers."""


class Guard:
    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app, self.settings = app, settings
        own = () if _is_wildcard(settings.host) else (_as_host(settings.host),)
        self._hosts = {name.lower() for name in (*LOOPBACK_NAMES, *own, *map(_as_host, settings.allow_hosts))}
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(settings.rate) if settings.rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send)
        body = _Body(receive, self._most_bytes(scope), self.settings)
        try:
            try:
                entered = await self._check(scope, Headers(scope=scope), body)
                if entered is not None:
                    await entered(scope, receive, answer.send)
                    return
                await self.app(scope, body.receive, lambda message: answer.send_unless(body.refused, message))
            except _RefusedBodyError:
                pass
            if body.refused is not None and not answer.started:
                raise body.refused
        except ProblemError as error:
            headers = {**error.headers, "Connection": "close"} if body.refused else error.headers
            await problem(error.status, error.detail, headers=headers)(scope, receive, answer.send)
        except ClientDisconnect:
            pass
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if answer.started:
                raise  # so that the connection is cut: half an answer must not look whole
            await problem(500, INTERNAL)(scope, receive, answer.send)

    async def _check(self, scope: Scope, headers: Headers, body: _Body) -> Response | None:
        """ProblemError for what is refused; an answer for a browser that brings its token."""
        self._check_host(scope, headers)
        await self._check_rate(scope)
        entered = self._check_token(scope, headers)
        if entered is None:
            self._check_origin(scope, headers)
            body.check_stated(headers.get("content-length", ""))
        return entered

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        """The name that the client used: one of ours, or the address that it reached, where all are listened on."""
        named = headers.getlist("host")
        host = _without_port(named[0]) if len(named) == 1 else ""
        reached = scope["server"][0] if _is_wildcard(self.settings.host) and scope.get("server") else None
        if host not in self._hosts and (reached is None or host != _as_host(reached)):
            raise ProblemError(400, f"This server is not called {host[:80] or 'nothing'!r}; --allow-host adds a name.")

    async def _check_rate(self, scope: Scope) -> None:
        client = scope["client"][0] if scope.get("client") else ""
        if self._rate is not None and not await self._limiter.hit(self._rate, client):
            raise ProblemError(429, f"At most {self.settings.rate} requests a second, please.", retry_after=1)

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        token = self.settings.token
        if token is None or scope["path"] in _OPEN or scope["method"] == "OPTIONS":  # preflights carry no token
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        brought = [value for name, value in asked if name == "token"]
        if scope["path"].startswith("/assets/") or (scope["path"] == "/" and not brought):
            return None  # the page itself says nothing of the collection, and asks for the token
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), token):
            return None
        if _same(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), _cookie_of(token)):
            return None
        if scope["path"] == "/" and scope["method"] == "GET" and any(_same(value, token) for value in brought):
            rest = urlencode([(name, value) for name, value in asked if name != "token"])
            entered = RedirectResponse(f"/?{rest}" if rest else "/", 303, {"Cache-Control": "no-store"})
            entered.set_cookie(COOKIE, _cookie_of(token), httponly=True, samesite="strict", max_age=86_400 * 365)
            return entered
        detail = "A token is needed: send `Authorization: Bearer TOKEN`, or open /?token=TOKEN in the browser once."
        raise ProblemError(401, detail, WWW_Authenticate="Bearer")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Pages of other sites may link here; they may not use the API, nor show its pictures as theirs."""
        origin = headers.get("origin")
        if origin in self.settings.cors:
            return
        place = urlsplit(origin or "")
        ours = origin is None or (place.scheme in ("http", "https") and place.netloc == headers.get("host"))
        site = headers.get("sec-fetch-site", "none")
        followed = scope["method"] in _SAFE and headers.get("sec-fetch-mode") == "navigate"
        if (not ours and scope["method"] not in _SAFE) or (site not in ("none", "same-origin") and not followed):
            raise ProblemError(403, f"A page of {(origin or 'another site')[:200]} may not do that; --cors lets it.")

    def _most_bytes(self, scope: Scope) -> int:
        uploads = scope["path"] == f"{API}/uploads"
        limit = min(self.settings.max_upload_megabytes, self.settings.limits.max_megabytes)
        return int((limit if uploads else self.settings.max_body_megabytes) * 1e6)


class _Body:
    """What a client sends. refused: why it is read no further."""

    def __init__(self, receive: Receive, most_bytes: int, settings: ServerSettings) -> None:
        self._receive, self._most, self._settings = receive, most_bytes, settings
        self._bytes, self._whole = 0, False
        self._deadline = asyncio.get_running_loop().time() + settings.request_seconds
        self.refused: ProblemError | None = None

    def check_stated(self, length: str) -> None:
        if length.isdecimal() and int(length[:18]) > self._most:
            self.refused = self._too_large()
            raise self.refused

    async def receive(self) -> Message:
        if self._whole:  # from here on it only tells that the client went away, whenever that is
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(left, self._settings.stall_seconds)):
                message = await self._receive()
        except TimeoutError:
            self.refused = ProblemError(408, "The request did not come whole in time; send it again.")
            raise _RefusedBodyError from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._bytes > self._most:
                self.refused = self._too_large()
                raise _RefusedBodyError
        return message

    def _too_large(self) -> ProblemError:
        return ProblemError(413, f"The request is larger than {self._most / 1e6:g} MB, the limit here.")


class _Answer:
    """What goes out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def send_unless(self, refused: ProblemError | None, message: Message) -> None:
        """What the application makes of a body that was refused says less than the refusal does."""
        if refused is None or self.started:
            await self.send(message)


def _same(given: str, wanted: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _cookie_of(token: str) -> str:
    """What browsers keep: as good as the token here, and no use elsewhere."""
    return hashlib.sha256(b"mmsearch cookie " + token.encode()).hexdigest()


def _without_port(host: str) -> str:
    """`[::1]:8765` -> `[::1]`; "" for what is no host."""
    try:
        place = urlsplit(f"//{host}")
        _ = place.port
    except ValueError:
        return ""
    return _as_host(place.hostname or "") if place.netloc == host else ""


def _as_host(name: str) -> str:
    """As it stands in a Host header, without a port."""
    name = name.strip("[]").lower()
    return f"[{name}]" if ":" in name else name


def _is_wildcard(host: str) -> bool:
    return host.strip("[]") in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
