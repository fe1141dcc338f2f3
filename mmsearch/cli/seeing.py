"""Looking at the answers: `--html`, `--open` and `--preview`. Imported only where one of them is given."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from mmsearch.cli.console import on_terminal, warn
from mmsearch.errors import UsageError
from mmsearch.render.gallery import gallery, write
from mmsearch.settings import Limits
from mmsearch.types import SearchResult


def write_gallery(path: Path, result: SearchResult, title: str) -> None:
    """The page of answers, and a line that says where it is. UsageError where it cannot be written."""
    write(gallery(result, title=title), path)
    warn(f"the answers are in {path}.")


def open_gallery(result: SearchResult, title: str, path: Path | None) -> None:
    """Show the page in the browser: the one that is written already, or one of this moment.

    That one lies in the person's own cache, under one name: it is replaced the next time, and nobody else reads it.
    """
    if path is None:
        path = _page_of_the_moment()
        write(gallery(result, title=title), path)
    if not _has_browser() or not webbrowser.open(path.absolute().as_uri()):
        warn(f"there is no browser to open here; the answers are in {path}.")


def preview(result: SearchResult) -> None:
    """The pictures in the terminal, which `check_terminal` has seen."""
    from rich.console import Console

    from mmsearch.render.pictures import show

    show(Console(highlight=False), result, Path.cwd(), Limits())


def check_terminal() -> None:
    """UsageError with the reason where pictures cannot be shown."""
    instead = "--html FILE writes a page with the pictures, --open shows it"
    if not on_terminal():
        raise UsageError(f"--preview shows pictures in a terminal, and this is a pipe or a file; {instead}.")
    if not sys.stdin.isatty():
        raise UsageError(f"--preview asks the terminal what it can show, and stdin is none here; {instead}.")
    if os.environ.get("NO_COLOR"):
        raise UsageError(f"--preview needs colours, and NO_COLOR forbids them; {instead}.")
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        raise UsageError(f"--preview needs a terminal with colours, and TERM says that this one has none; {instead}.")
    if not min(os.get_terminal_size(sys.stdout.fileno())):
        raise UsageError(f"--preview needs to know how large the terminal is, and it does not say; {instead}.")


def _page_of_the_moment() -> Path:
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("mmsearch", appauthor=False))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}); say where with --html FILE.") from error
    return folder / "answers.html"


def _has_browser() -> bool:
    """Without a screen, webbrowser would start a browser of plain text, which shows no pictures."""
    if sys.platform == "darwin":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
