"""The entry point: turns every way a command can end into one line and an exit code (exits.py lists them).

Imports little, so that Ctrl-C is answered properly from the first moment; the commands are imported inside `main`.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from types import FrameType

from mmsearch.cli.console import warn
from mmsearch.cli.exits import Exit
from mmsearch.errors import MMSearchError, PictureError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; default: the process's) and return its exit code."""
    try:
        _calm_the_process()
        from mmsearch.cli.app import run

        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        code = _say(Exit.INTERRUPTED, "stopped.")
    except Exception as error:  # noqa: BLE001 - the outermost place: people get one line, and the rest if they ask
        code = _ended_by(error)
    _finish_stdout()
    return code


def _ended_by(error: Exception) -> Exit:
    """Says what happened and returns its exit code."""
    signalled = _signal_behind(error)
    if signalled == Exit.INTERRUPTED:
        return _say(Exit.INTERRUPTED, "stopped.")
    if signalled is not None:
        return signalled
    if isinstance(error, BrokenPipeError):
        return Exit.DONE  # as in `mmsearch query cat | head -1`: the reader has what it wanted
    if isinstance(error, UsageError | PictureError):  # a picture is an argument here; an index run records its own
        return _say(Exit.USAGE, str(error))
    if isinstance(error, MMSearchError):
        return _say(Exit.UNUSABLE, str(error))
    if isinstance(error, OSError):
        place = f": {error.filename!s}" if error.filename else ""
        return _say(Exit.UNUSABLE, f"{error.strerror or error}{place}")
    what = f"{type(error).__name__}: {error}"
    return _say(Exit.OUR_BUG, f"internal error: {what} (please report it; MMSEARCH_DEBUG=1 shows where it was)")


def _signal_behind(error: BaseException | None) -> Exit | None:
    """A signal during the import of a compiled module comes out as an ImportError that it caused."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return Exit.INTERRUPTED
        if isinstance(error, SystemExit) and error.code == Exit.TERMINATED:
            return Exit.TERMINATED
        error = error.__cause__ or error.__context__
    return None


def _finish_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # the reader went away, or the disk is full: nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(code: Exit, message: str) -> Exit:
    """One line, and where it came from for those who ask."""
    if os.environ.get("MMSEARCH_DEBUG"):
        import traceback

        traceback.print_exc()
    _finish_stdout()
    warn(message)
    return code


def _calm_the_process() -> None:
    """Names that are no text must not break printing; libraries' warnings are not for people at a shell;
    SIGTERM unwinds like any other end, so that temporary folders go; onnxruntime starts its telemetry when it is
    imported unless this variable forbids it (calling disable_telemetry_events afterwards is too late)."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us, as some daemons do
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the process's life
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not sys.warnoptions and not os.environ.get("MMSEARCH_DEBUG"):
        warnings.simplefilter("ignore")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        sys.unraisablehook = _say_again


def _say_again(lost: sys.UnraisableHookArgs) -> None:
    """A signal that arrived inside a finaliser is lost with it: send it once more, a moment later."""
    if isinstance(lost.exc_value, KeyboardInterrupt | SystemExit):
        number = signal.SIGINT if isinstance(lost.exc_value, KeyboardInterrupt) else signal.SIGTERM
        threading.Timer(0.02, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(lost)


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    raise SystemExit(Exit.TERMINATED)
