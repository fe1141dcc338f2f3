"""The URL of a picture -> its bytes, for queries that look for what resembles a picture of the web.

A URL may come from a stranger (over HTTP, say), so that it must not lead into the network this program runs in: the
host is looked up here, each address is checked, and the connection goes to the very address that was checked. That
holds for every redirect too, and for names that answer differently the second time. Size and time are limited as a
whole, not only for each read. Nothing of the environment counts but the certificate store: no proxies, no .netrc.

httpcore rather than httpx: its network backend is where a connection is made, and public.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpcore2 as httpcore

from mmsearch.errors import UsageError

MAX_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HEADERS: dict[bytes | str, bytes | str] = {
    "User-Agent": "mmsearch (fetches one picture that a person asked for)",
    "Accept": "image/*",
    # A compressed answer could grow a thousandfold; pictures are compressed as they are.
    "Accept-Encoding": "identity",
    "Connection": "close",
}

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out for use in public
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: how a network without IPv4 reaches IPv4
# Global in name only, or not known as special to every Python: 6to4 and Teredo carry an IPv4 address that somebody
# else unpacks; protocol assignments, the relays of 6to4, documentation, segment routing.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)


def fetch(url: str, *, max_bytes: int, private_addresses: bool = False, timeout_seconds: float = 20) -> bytes:
    """The bytes that a URL leads to: http or https, at most MAX_REDIRECTS redirects, `max_bytes` and
    `timeout_seconds` all in all. Whether they are a picture is seen when they are decoded.

    private_addresses: let it lead to this machine and its local network too. Raises UsageError, one line that names
    the URL and the reason, for whatever goes wrong.
    """
    deadline = _Deadline(timeout_seconds)
    at = url
    try:
        with httpcore.ConnectionPool(network_backend=_CheckedNetwork(deadline, private_addresses)) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                answer = _get(pool, _encoded(at), max_bytes)
                if isinstance(answer, bytes):
                    return answer
                at = answer.location
        raise _RefusedError(f"it is redirected more than {MAX_REDIRECTS} times")
    except _RefusedError as error:
        reason = str(error)
    except (TimeoutError, httpcore.TimeoutException):
        reason = f"it did not come whole within {timeout_seconds:g} seconds"
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        reason = _reason(error)
    led = "" if at == url else f" (it led to {_without_password(at)})"
    raise UsageError(f"{_without_password(url)} cannot be fetched: {reason}{led}.")


def is_public(address: str) -> bool:
    """Whether an IP address, as text, can be reached from everywhere and belongs to one host: not loopback, private,
    shared (CGNAT), link-local, multicast, reserved, or a way around that, such as ::ffff:127.0.0.1."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _TRANSLATED:
            ip = ipaddress.IPv4Address(ip.packed[12:])
        elif ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not any(ip in network for network in _SPECIAL)


class _RefusedError(Exception):
    """Not to be fetched; the message is the reason."""


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


class _Deadline:
    """One limit for everything: a server that sends a byte now and then would never run into that of one read."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _get(pool: httpcore.ConnectionPool, url: str, max_bytes: int) -> bytes | _Redirect:
    with pool.stream("GET", url, headers=_HEADERS) as response:
        headers = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and "location" in headers:
            return _Redirect(_joined(url, headers["location"]))
        if response.status in (404, 410):
            raise _RefusedError(f"there is no such picture (HTTP {response.status})")
        if response.status != 200:
            raise _RefusedError(f"the server answered with HTTP {response.status}")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _RefusedError("the server sends it compressed though it was asked not to")
        if headers.get("content-type", "").lower().startswith("text/html"):
            raise _RefusedError("it is a web page; give the address of the picture itself")
        too_large = _RefusedError(f"it is larger than {max_bytes / 1e6:,.3g} MB")
        stated = headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > max_bytes:
            raise too_large
        data = bytearray()
        for chunk in response.iter_stream():
            data += chunk
            if len(data) > max_bytes:
                raise too_large
    return bytes(data)


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and to nothing else; every step ends at the deadline."""

    def __init__(self, deadline: _Deadline, private_addresses: bool) -> None:
        self._deadline = deadline
        self._private_addresses = private_addresses
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 (the deadline counts)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        found = _addresses(host, port, self._deadline)
        allowed = [address for address in found if self._private_addresses or is_public(address)]
        if not allowed:
            place = host if host == found[0] else f"{host} is {found[0]}, which"
            raise _RefusedError(f"{place} is not a public address (`--allow-private` allows others)")
        for left, address in zip(range(len(allowed), 0, -1), allowed, strict=True):
            try:
                # A share of the time each: a first address that swallows everything leaves some for the next.
                seconds = self._deadline.left() / left
                stream = self._network.connect_tcp(address, port, seconds, local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise
        raise AssertionError("unreachable")


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _addresses(host: str, port: int, deadline: _Deadline) -> list[str]:
    """What a host name stands for, in the order to be tried. The system's resolver has no limit of its own, so it
    gets a thread that may be left behind."""
    answers: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, ValueError):  # no such name; no name at all
            answers.put([])

    threading.Thread(target=ask, daemon=True, name="mmsearch-resolve").start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError from None
    if not answer:
        raise _RefusedError(f"there is no host {host}, or no network")
    return list(dict.fromkeys(str(address[0]) for *_, address in answer))


def _encoded(url: str) -> str:
    """A URL as people write it -> one of plain ASCII without a fragment, as it goes over the network."""
    try:
        url.encode()
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if ":" not in (host or ""):
            host = (host or "").encode("idna").decode()
    except ValueError as error:  # a port that is no number, brackets that do not close, a name that cannot be
        raise _RefusedError(f"that is no address of a picture: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise _RefusedError("only http:// and https:// addresses are fetched")
    if not host:
        raise _RefusedError("it names no host")
    if parts.username is not None or parts.password is not None:
        raise _RefusedError("it has a user name or a password in it, and those are never sent")
    place = f"[{host}]" if ":" in host else host
    place += f":{port}" if port is not None else ""
    path, query = (quote(part, safe="%/:@!$&'()*+,;=?~") for part in (parts.path or "/", parts.query))
    return urlunsplit((parts.scheme, place, path, query, ""))


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise _RefusedError(f"it is redirected to what is no address: {error}") from error


def _reason(error: Exception) -> str:
    """What a person can do something with, from what went wrong below."""
    cause = error.args[0] if error.args else None  # httpcore hands on what the socket said, but not as the cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate cannot be trusted ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):
        return "no secure connection could be made; the server may not speak https there"
    if isinstance(cause, ConnectionRefusedError):
        return "the server takes no connections there"
    if isinstance(error, httpcore.ConnectError):
        return f"no connection could be made ({getattr(cause, 'strerror', None) or error})"
    return f"the connection broke off, or the answer is not HTTP ({error})"


def _without_password(url: str) -> str:
    """Fit to be shown and logged."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)
