"""`mmsearch serve`: the page in the browser, and the HTTP API."""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, say, warn
from mmsearch.errors import MissingExtraError, UsageError
from mmsearch.settings import Limits

EXAMPLES = """\b
Examples:
  mmsearch serve
  mmsearch serve -c trips -c ./work --port 8080
  mmsearch serve --watch
  mmsearch serve --host 0.0.0.0 --allow-host nas.local
  curl 'localhost:8765/api/v1/search?q=a+red+car'
"""


def add_to(app: typer.Typer) -> None:
    app.command("serve", short_help="Look at pictures in the browser; an HTTP API.", epilog=EXAMPLES)(serve)


def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen. Others than this machine need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: any free one.")] = 8765,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="SECRET",
            envvar="MMSEARCH_TOKEN",
            show_envvar=False,
            help="What clients must show; better in MMSEARCH_TOKEN. Without one, --host makes one and shows it.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name that this server has. Can be repeated."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="A page elsewhere that may use the API. Can be repeated."),
    ] = None,
    rate: Annotated[
        int, typer.Option("--rate", min=0, metavar="N", help="Requests a second of each client; 0: any number.")
    ] = 200,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Follow the folders, and index what changes in them. See mmsearch[watch]."),
    ] = False,
    poll: options.Poll = None,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", metavar="NAME|DIR", help="A collection to serve. Can be repeated."),
    ] = None,
) -> None:
    """Serve collections: a page for the browser, and the HTTP API that it uses, with its schema at /openapi.json.

    Only this machine reaches it. Another --host needs a token, which programs send as `Authorization: Bearer TOKEN` and
    browsers get once from the address that is shown. Pictures are served by id, from indexed folders alone.
    Ctrl-C ends it.
    """
    try:
        from mmsearch.server import running
        from mmsearch.server.settings import ServerSettings, is_loopback
    except ImportError as error:
        raise MissingExtraError(
            f"Serving needs {error.name}, which is not installed: install mmsearch[serve]."
        ) from error
    from mmsearch.engine import Engine

    options.check_poll(poll, watch)
    made = not token and not is_loopback(host)
    settings = ServerSettings(
        host=host,
        port=port,
        token=token or (secrets.token_urlsafe(24) if made else None),
        allow_hosts=tuple(allow_host or ()),
        cors=tuple(cors or ()),
        rate=rate,
        limits=Limits(),
        watch=watch,
        poll=poll,
    )
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name in collection or (options.before_the_command(context),):
            engine = stack.enter_context(
                Engine.open(name, model=model, device=device, precision=precision, create=False)
            )
            shown = engine.folder.name
            if shown in engines:
                raise UsageError(f"Two collections are called {shown}; serve one of them, or rename a folder.")
            engines[shown] = engine
        listening = stack.enter_context(running.listen(settings))
        address = running.address(listening, settings)
        say(f"Serving {', '.join(engines)} at {address}/{f'?token={settings.token}' if made else ''}")
        sys.stdout.flush()  # whoever started this reads the address now, not at the end
        if not settings.loopback:
            warn("others can reach this address; they need the token.")
        if on_terminal():
            warn("Ctrl-C ends it.")
        running.run(engines, settings, listening)
