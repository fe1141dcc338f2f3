"""Requests to one server and its answers; problems become the errors that the engine there raised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpcore2 as httpcore

from mmsearch import errors
from mmsearch.errors import CollectionError, MMSearchError, UsageError

API = "/api/v1"
TYPE = "urn:mmsearch:"


class NotFoundError(UsageError):
    """What the server says is not there (404), for the client itself to see."""


class Transport:
    """One server. Safe on several threads; connections are kept."""

    def __init__(self, url: str, token: str | None, collection: str | None, timeout_seconds: float) -> None:
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise UsageError(f"{url!r} is no address of a server; write it as in http://127.0.0.1:8765.")
        self.url = url.rstrip("/")
        self._collection = collection
        self._headers = {"User-Agent": "mmsearch"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timeout = dict.fromkeys(("connect", "read", "write", "pool"), timeout_seconds)
        self._pool = httpcore.ConnectionPool(max_connections=100, keepalive_expiry=4)  # the server closes after 5

    def close(self) -> None:
        self._pool.close()

    def json(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """parameters: of the address; None leaves one out. -> the answer, read as JSON; None where it is empty."""
        content = None if body is None else json.dumps(body).encode()
        answer = self.bytes(method, path, content, {"Content-Type": "application/json"}, **parameters)
        return json.loads(answer) if answer else None

    def bytes(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> bytes:
        asked = {"collection": self._collection, **parameters}
        named = urlencode({name: value for name, value in asked.items() if value is not None})
        address = f"{self.url}{API}{quote(path)}" + (f"?{named}" if named else "")
        sent = list({**self._headers, **(headers or {})}.items())
        try:
            answer = self._pool.request(
                method, address, headers=sent, content=content, extensions={"timeout": self._timeout}
            )
        except httpcore.TimeoutException as error:
            raise CollectionError(
                f"The server {self.url} did not answer within {self._timeout['read']:g} s."
            ) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise CollectionError(f"The server {self.url} cannot be reached ({error}); is it running?") from error
        if answer.status >= 400:
            raise _error(answer.status, answer.content)
        return bytes(answer.content)


def _error(status: int, content: bytes) -> MMSearchError:
    try:
        said = json.loads(content)
        detail, kind = str(said["detail"]), str(said["type"])
    except (ValueError, KeyError, TypeError):
        return CollectionError(f"The server answered with HTTP {status}, and not as mmsearch does; check the address.")
    return error_named(kind.removeprefix(TYPE), detail, status)


def error_named(name: str | None, message: str, status: int = 500) -> MMSearchError:
    """The error of that class in `mmsearch.errors`; of what HTTP itself refuses, one that fits its status."""
    known = getattr(errors, name or "", None)
    if isinstance(known, type) and issubclass(known, MMSearchError):
        return known(message)
    if status == 404:
        return NotFoundError(message)
    return UsageError(message) if status < 500 else CollectionError(message)
