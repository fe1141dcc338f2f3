"""Collections that follow their folders: real files, real events and looks, real processes. No test sleeps for timing:
each waits for what must happen, with a limit that only a broken program reaches."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mmsearch import Engine, IndexReport, Progress, following, watching
from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.errors import LockError, UsageError
from mmsearch.following import Following, Looks, may_matter, needs_polling
from tests.conftest import paint
from tests.test_cli_process import command, environment_in
from tests.toy import ToyEncoder

PATIENCE_SECONDS = 120
WAYS = [
    pytest.param(False, id="events", marks=pytest.mark.skipif(not find_spec("watchfiles"), reason="no watchfiles")),
    pytest.param(True, id="polling"),
]


def wait_until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


class Watcher:
    """An engine that follows its roots on a thread of its own."""

    def __init__(self, folder: Path, **how: Any) -> None:
        self.reports: list[IndexReport] = []
        self.told: list[tuple[Following, ...]] = []
        self.troubles: list[str] = []
        self.progress: list[Progress] = []
        self.error: BaseException | None = None
        self.cancel = threading.Event()
        self.engine = Engine.open(folder, model=ToyEncoder())
        self._thread = threading.Thread(target=self._work, kwargs=how)
        self._thread.start()

    def _work(self, **how: Any) -> None:
        try:
            self.engine.watch(
                on_report=self.reports.append,
                on_following=self.told.append,
                on_trouble=self.troubles.append,
                on_progress=self.progress.append,
                cancel=self.cancel,
                **how,
            )
        except BaseException as error:  # noqa: BLE001 - told by `stop`
            self.error = error

    def names(self) -> set[str]:
        return {hit.path.name for hit in self.engine.search("red", k=10_000) if hit.path is not None}

    def sees(self, *names: str) -> None:
        wait_until(lambda: self.error or self.names() == set(names), f"{names}, seen {self.names()}")
        assert self.error is None

    def ready(self) -> None:
        """The first run is over: what happens from now on is up to the watch."""
        wait_until(lambda: self.error or self.reports, "the first run")

    def stop(self) -> None:
        self.cancel.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        self.engine.close()
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LOOK_SECONDS", 0.05), ("SETTLE_SECONDS", 0.05), ("LOOK_SHARE", 0.5)):
        monkeypatch.setattr(following, name, seconds)
    monkeypatch.setattr(following, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(watching, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with one picture, indexed."""
    paint(tmp_path / "images" / "first.png", "red")
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture(params=WAYS)
def watcher(request: pytest.FixtureRequest, folder: Path) -> Iterator[Watcher]:
    made = Watcher(folder.parent / "collection", poll=request.param)
    made.ready()
    yield made
    made.stop()


# --- what happens to files ----------------------------------------------------------------------------------------


def test_new_changed_moved_and_removed_pictures(watcher: Watcher, folder: Path) -> None:
    assert watcher.told == [(Following(folder, *_how(watcher)),)]
    paint(folder / "second.png", "red", 2)
    watcher.sees("first.png", "second.png")
    (folder / "second.png").rename(folder / "moved.png")
    watcher.sees("first.png", "moved.png")
    (folder / "first.png").unlink()
    watcher.sees("moved.png")
    paint(folder / "moved.png", "blue", 3)  # other content in its place
    wait_until(lambda: (hits := watcher.engine.search("blue", k=1)) and hits[0].score > 0.9, "a changed picture")
    wait_until(lambda: sum(report.moved for report in watcher.reports) == 1, "a move that is recognised")
    assert watcher.told == [(Following(folder, *_how(watcher)),)]


def _how(watcher: Watcher) -> tuple[Any, ...]:
    how = watcher.told[0][0].how
    return how, "as asked" if how == "polling" else ""


def test_folders_that_come_and_go_with_all_that_is_in_them(watcher: Watcher, folder: Path, tmp_path: Path) -> None:
    paint(tmp_path / "aside" / "deep" / "a.png", "red", 2)
    paint(tmp_path / "aside" / "b.png", "red", 3)
    (tmp_path / "aside").rename(folder / "inside")
    watcher.sees("first.png", "a.png", "b.png")
    paint(folder / "inside" / "deep" / "c.png", "red", 4)  # a folder that was not there when the watch began
    watcher.sees("first.png", "a.png", "b.png", "c.png")
    shutil.rmtree(folder / "inside" / "deep")
    watcher.sees("first.png", "b.png")


def test_captions_beside_pictures_and_ignore_files(watcher: Watcher, folder: Path) -> None:
    (folder / "first.txt").write_text("a plain red field")
    wait_until(lambda: watcher.engine.search("red field", find="captions").hits, "a caption")
    paint(folder / "draft.png", "red", 5)
    watcher.sees("first.png", "draft.png")
    (folder / ".mmsearchignore").write_text("draft*\n")
    watcher.sees("first.png")


def test_editors_that_write_beside_and_rename(watcher: Watcher, folder: Path) -> None:
    target = folder / "first.png"
    for number in range(5):
        (folder / "4913").write_bytes(b"")
        (folder / "4913").unlink()
        target.rename(folder / "first.png~")
        shutil.copy(paint(folder.parent / "aside.png", "green", number), folder / ".first.png.part")
        (folder / ".first.png.part").rename(target)
        (folder / "first.png~").unlink()
    wait_until(lambda: (hits := watcher.engine.search("green", k=1)) and hits[0].score > 0.9, "the last version")
    watcher.sees("first.png")


def test_broken_pictures_cost_themselves_alone_and_may_be_mended(watcher: Watcher, folder: Path) -> None:
    whole = paint(folder.parent / "whole.png", "red", 6).read_bytes()
    (folder / "broken.png").write_bytes(whole[:60])
    paint(folder / "good.png", "red", 7)
    watcher.sees("first.png", "good.png")
    wait_until(lambda: [one.path.name for one in watcher.engine.status().failed] == ["broken.png"], "a failure")
    (folder / "broken.png").write_bytes(whole)
    watcher.sees("first.png", "good.png", "broken.png")
    assert not watcher.engine.status().failed


def test_a_flood(watcher: Watcher, folder: Path) -> None:
    source = paint(folder.parent / "source.png", "red", 8).read_bytes()
    names = [f"{number:04}.png" for number in range(400)]
    for number, name in enumerate(names):  # each another content
        (folder / name).write_bytes(source + number.to_bytes(4, "big"))
    watcher.sees("first.png", *names)
    wait_until(lambda: sum(report.new + report.changed for report in watcher.reports) == len(names), "each told once")
    assert len(watcher.reports) < len(names) / 4


def test_a_root_that_goes_away_and_comes_back(watcher: Watcher, folder: Path) -> None:
    away = folder.with_name("away")
    folder.rename(away)
    wait_until(lambda: watcher.told[-1] == (Following(folder, "away"),), "a root that is away")
    wait_until(lambda: any(report.left_alone for report in watcher.reports), "a run that leaves it alone")
    paint(away / "meanwhile.png", "red", 9)
    away.rename(folder)
    watcher.sees("first.png", "meanwhile.png")
    wait_until(lambda: watcher.told[-1] == watcher.told[0], "a root that is followed again")
    paint(folder / "after.png", "red", 10)
    watcher.sees("first.png", "meanwhile.png", "after.png")


def test_roots_that_others_add_and_remove(watcher: Watcher, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    paint(other / "x.png", "red", 11)
    with Engine.open(watcher.engine.folder, model=ToyEncoder()) as engine:
        engine.index(other)
    wait_until(lambda: len(watcher.told[-1]) == 2, "two roots")
    paint(other / "y.png", "red", 12)
    watcher.sees("first.png", "x.png", "y.png")
    with Engine.open(watcher.engine.folder, model=ToyEncoder()) as engine:
        wait_until(lambda: _removed(engine, other), "a moment without a run")
    wait_until(lambda: len(watcher.told[-1]) == 1, "one root")
    paint(other / "z.png", "red", 13)
    paint(folder / "w.png", "red", 14)
    watcher.sees("first.png", "w.png")
    assert [root.path for root in watcher.engine.status().roots] == [folder]


def _removed(engine: Engine, root: Path) -> bool:
    try:
        return engine.remove_root(root) > 0
    except LockError:  # the watch is at work
        return False


def test_another_run_at_work_is_waited_for(watcher: Watcher, folder: Path) -> None:
    before = len(watcher.reports)
    held = Catalog(watcher.engine.folder, create=False).index_run(lambda _: None, lambda: False)
    with held as mine:
        assert mine
        paint(folder / "late.png", "red", 15)
        wait_until(lambda: any(one.stage == "waiting" for one in watcher.progress), "a run that waits")
        assert len(watcher.reports) == before
        watcher.sees("first.png")
    watcher.sees("first.png", "late.png")


def test_a_root_that_is_removed_while_its_run_waits_stays_removed(watcher: Watcher, folder: Path) -> None:
    held = Catalog(watcher.engine.folder, create=False)
    with held.index_run(lambda _: None, lambda: False):
        paint(folder / "late.png", "red", 15)
        wait_until(lambda: any(one.stage == "waiting" for one in watcher.progress), "a run that waits")
        with held.writing() as connection:  # as `roots.remove` does, which holds that lock
            write.drop_root(connection, read.roots(connection)[0].id)
    wait_until(lambda: watcher.told[-1] == (), "nothing to follow")
    assert watcher.engine.status().roots == ()


def test_a_collection_in_its_own_root_does_not_keep_itself_busy(tmp_path: Path) -> None:
    root = tmp_path / "images"
    paint(root / "first.png", "red")
    with Engine.open(root / "collection", model=ToyEncoder()) as engine:
        engine.index(root)
    for poll in (True, False) if find_spec("watchfiles") else (True,):
        watcher = Watcher(root / "collection", poll=poll)
        watcher.ready()
        before = len(watcher.reports)
        for number in range(3):
            paint(root / f"{poll} {number}.png", "red", 20 + number + 5 * poll)
            wait_until(lambda: f"{poll} {number}.png" in watcher.names(), "a new picture")  # noqa: B023 - asked at once
        assert len(watcher.reports) - before <= 6
        watcher.stop()


# --- how it is told and ended ---------------------------------------------------------------------------------------


def test_without_watchfiles_folders_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "find_spec", lambda name: None)
    watcher = Watcher(folder.parent / "collection")
    watcher.ready()
    assert watcher.told == [(Following(folder, "polling", "for events, pip install 'mmsearch[watch]'"),)]
    watcher.stop()


def test_where_the_system_refuses_events_folders_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watching, "Events", refuse)
    watcher = Watcher(folder.parent / "collection", poll=False)
    watcher.ready()
    how = Following(folder, "polling", "the system refuses events: OS file watch limit reached")
    assert watcher.told == ([(how,)] if find_spec("watchfiles") else watcher.told)
    paint(folder / "second.png", "red", 2)
    watcher.sees("first.png", "second.png")
    watcher.stop()


@pytest.mark.skipif(not find_spec("watchfiles"), reason="no watchfiles")
def test_where_events_end_folders_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(folder.parent / "collection", poll=False)
    watcher.ready()

    def fail(_: following.Events) -> set[Path]:
        raise OSError("error in underlying watcher")

    monkeypatch.setattr(following.Events, "changed", fail)
    how = Following(folder, "polling", "the system refuses events: error in underlying watcher")
    wait_until(lambda: watcher.told == [(Following(folder, "events"),), (how,)], "another way")
    paint(folder / "second.png", "red", 2)
    watcher.sees("first.png", "second.png")
    watcher.stop()


def test_only_the_roots_around_what_is_named(folder: Path, tmp_path: Path) -> None:
    paint(tmp_path / "other" / "x.png", "red", 3)
    paint(folder / "deep" / "d.png", "red", 4)
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index([tmp_path / "other", folder])
        with pytest.raises(UsageError, match="no root"):
            engine.watch(tmp_path / "elsewhere")
    watcher = Watcher(tmp_path / "collection", paths=folder / "deep", poll=True)
    watcher.ready()
    assert [one.folder for one in watcher.told[-1]] == [folder]
    watcher.stop()


def test_a_lock_that_is_held_too_long_is_told_and_tried_again(tmp_path: Path) -> None:
    root, cancel, reports, troubles, calls = tmp_path, threading.Event(), [], [], []

    def run(folders: Any) -> IndexReport:
        calls.append(list(folders))
        if len(calls) == 1:
            raise LockError("locked by another program")
        return IndexReport("toy")

    def reported(report: IndexReport) -> None:
        reports.append(report)
        cancel.set()

    watching.watch(
        run,
        lambda: [root],
        tmp_path / "c",
        exclude=(),
        poll=True,
        on_report=reported,
        on_following=lambda _: None,
        on_trouble=troubles.append,
        cancel=cancel,
    )
    assert (calls, troubles, len(reports)) == ([[root], [root]], ["locked by another program"], 1)


def test_a_collection_without_roots_waits_for_some(tmp_path: Path, images: Path) -> None:
    watcher = Watcher(tmp_path / "collection", poll=True)
    wait_until(lambda: watcher.told == [()], "nothing to follow")
    with Engine.open(tmp_path / "collection", model=ToyEncoder()) as engine:
        engine.index(images)
    watcher.ready()
    assert watcher.reports[0].unchanged == 10
    watcher.stop()


# --- deciding -----------------------------------------------------------------------------------------------------

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - {root} /dev/vda rw
40 27 0:50 / /mnt/nas\\040one rw,relatime shared:1 - nfs4 nas:/photos rw
41 27 0:51 / /mnt/c rw,noatime - 9p drvfs rw
42 40 0:52 / /mnt/nas\\040one/local rw - ext4 /dev/sdb rw
43 27 0:53 / /home rw - ext4 /dev/sdc rw
44 43 0:54 / /home/me/Remote rw - fuse.sshfs host: rw
45 43 0:55 / /home/me/USB rw - fuseblk /dev/sdd rw
"""


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/home/me/Pictures", None),
        ("/home", "fuse.sshfs does not tell of changes made elsewhere (at /home/me/Remote)"),
        ("/home/me/USB/DCIM", None),
        ("/mnt/nas one/2024", "nfs4 does not tell of changes made elsewhere"),
        ("/mnt/nas one/local/x", None),
        ("/mnt/nas one two", None),
        ("/mnt/c/Users", "9p does not tell of changes made elsewhere"),
        ("/srv", None),
    ],
)
def test_file_systems_without_events(folder: str, why: str | None) -> None:
    assert needs_polling(Path(folder), MOUNTS.format(root="ext4")) == why


def test_layered_file_systems() -> None:
    why = "overlay does not tell of changes in its lower layers"
    assert needs_polling(Path("/srv"), MOUNTS.format(root="overlay")) == why
    assert needs_polling(Path("/home/me/x"), MOUNTS.format(root="overlay")) is None
    assert needs_polling(Path("/srv"), "nonsense\n") is None


def test_events_that_may_matter(tmp_path: Path) -> None:
    (tmp_path / "folder.d").mkdir()
    (tmp_path / "app.log").write_text("a line")
    picture = paint(tmp_path / "picture.png", "red")
    picture.rename(tmp_path / "no suffix")
    matter = [("added", "a.JPG"), ("modified", "a.txt"), ("modified", ".mmsearchignore"), ("added", "folder.d")]
    matter += [("deleted", "folder.d"), ("modified", "no suffix"), ("added", "no suffix")]
    for change, name in matter:
        assert may_matter(change, str(tmp_path / name), tmp_path), (change, name)
    no_matter = [("modified", "app.log"), ("added", "app.log"), ("modified", "folder.d"), ("added", "gone.x")]
    no_matter += [("deleted", ".git/index.lock"), ("added", ".cache/a/b.jpg"), ("added", "._a.jpg")]
    for change, name in no_matter:
        assert not may_matter(change, str(tmp_path / name), tmp_path), (change, name)
    assert may_matter("deleted", str(tmp_path), tmp_path)


def test_looks_tell_of_pictures_alone_and_only_when_they_have_come_to_rest(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    looks = Looks(tmp_path, ["drafts/"])

    def look() -> bool:
        looks._next = 0.0
        return looks.changed()

    assert not look()
    (tmp_path / "app.log").write_text("a line")
    paint(tmp_path / "drafts" / "b.png", "red")
    assert not look()
    paint(tmp_path / "c.png", "blue")
    assert [look(), look(), look()] == [False, True, False]
    for number in range(20):  # never at rest: told all the same
        paint(tmp_path / "busy" / f"{number}.png", "blue", number)
        if look():
            break
    assert number == following.MOST_LOOKS - 1
    shutil.rmtree(tmp_path)
    assert [look(), look()] == [False, True]
    tmp_path.mkdir()
    assert [look(), look()] == [False, True]
    looks._next = time.monotonic() + 1000
    paint(tmp_path / "d.png", "blue")
    assert not looks.changed()


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_follows_until_it_is_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    paint(folder / "first.png", "red")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    environment = environment_in(tmp_path)
    process = subprocess.Popen(
        command("index", folder, "--model", "colour", "--watch"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))  # type: ignore[union-attr]
    reader.start()

    def told(*words: str) -> bool:
        assert process.poll() is None, lines
        return any(all(word in line for word in words) for line in lines)

    try:
        wait_until(lambda: told("following", str(folder)), "the line that says what is followed")
        paint(folder / "second.png", "red", 2)
        wait_until(lambda: told("1 new", "1 unchanged"), "a line about one new picture")
        (folder / "first.png").unlink()
        wait_until(lambda: told("1 missing"), "a line about a picture that is gone")
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_SECONDS)
        reader.join(PATIENCE_SECONDS)
        process.stdout.close()
    assert code == 130, lines
    assert not any("Traceback" in line for line in lines)
    assert sum("following" in line for line in lines) == 1
    assert sum("broken.png" in line for line in lines) == 1  # said once
    assert len([line for line in lines if "unchanged" in line]) == 3  # the first run, and one for each change
    assert os.path.exists(tmp_path / "collection" / "catalog.sqlite")
