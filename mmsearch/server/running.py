"""A bound socket and an application -> a server that runs until a signal ends it."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Mapping

import uvicorn

from mmsearch.engine import Engine
from mmsearch.errors import UsageError
from mmsearch.server.app import create_app
from mmsearch.server.observing import configure_logs
from mmsearch.server.protocol import PatientProtocol
from mmsearch.server.settings import ServerSettings

GRACE_SECONDS = 5  # for answers that are under way when the server ends
BACKLOG = 512
MOST_CONNECTIONS = 1000


def listen(settings: ServerSettings) -> socket.socket:
    """UsageError: a host that is none, or not of this machine; a port in use, or not allowed."""
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"There is no host {host!r}; --host is an address of this machine, as in 127.0.0.1."
        ) from error
    # The protocol by name: asyncio switches Nagle's algorithm off only where it sees it, and with it every answer of
    # two packets on a kept connection waits 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} of {host} is in use; choose another with --port, or any with 0.") from error
        raise UsageError(
            f"{host}, port {port}, cannot be listened on: {error.strerror}; see --host, --port."
        ) from error
    return listening


def address(listening: socket.socket, settings: ServerSettings) -> str:
    """As one opens it."""
    host = settings.host.strip("[]")
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{listening.getsockname()[1]}"


def run(engines: Mapping[str, Engine], settings: ServerSettings, listening: socket.socket) -> None:
    """Until SIGINT or SIGTERM, which is raised again afterwards."""
    configure_logs(as_json=not sys.stderr.isatty())
    make_server(engines, settings).run(sockets=[listening])


def make_server(engines: Mapping[str, Engine], settings: ServerSettings) -> uvicorn.Server:
    """The server, not yet running."""
    PatientProtocol.patience_seconds = settings.stall_seconds
    app = create_app(engines, settings)
    config = uvicorn.Config(
        app,
        lifespan="on",
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=MOST_CONNECTIONS,
        ws="none",
    )
    server = uvicorn.Server(config)
    app.state.server.stopping = lambda: server.should_exit
    return server
