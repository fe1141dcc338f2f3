"""What a run writes down: rows that people and TensorBoard read, also after a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

pytest.importorskip("tensorboardX", reason="training needs the extra: pip install 'mmsearch[train]'")

from tensorboardX.proto import event_pb2

from mmsearch.errors import MMSearchError, UsageError
from mmsearch.training.logs import Logs, read


def crc32c(content: bytes) -> int:
    """Castagnoli's checksum, bit by bit; of b"123456789" it is 0xe3069283."""
    found = 0xFFFFFFFF
    for byte in content:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def masked(content: bytes) -> int:
    found = crc32c(content)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path: Path) -> list[event_pb2.Event]:
    """A TFRecord file: length (8 bytes), its checksum (4), message, its checksum."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert struct.unpack("<I", content[8:12])[0] == masked(content[:8])
        message = content[12 : 12 + length]
        assert struct.unpack("<I", content[12 + length : 16 + length])[0] == masked(message)
        found.append(event_pb2.Event.FromString(message))
        content = content[16 + length :]
    return found


def curve(folder: Path, name: str) -> dict[int, float]:
    """As TensorBoard shows it: a session takes back what earlier ones wrote at its first step and later."""
    found: dict[int, float] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in events(path):
            if event.HasField("session_log"):
                found = {step: value for step, value in found.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == name:
                    found[event.step] = value.simple_value
    return found


def test_the_checksum_of_this_test_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_rows_and_curves_say_the_same(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "run", 0)
    logs.write(10, {"loss": 2.5, "learning_rate": 1e-3})
    logs.write(20, {"loss": 1.25, "t2i_R@10": 1 / 3})
    lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert lines == [
        "step,loss,learning_rate,pairs_a_second,t2i_R@1,t2i_R@5,t2i_R@10,i2t_R@1,i2t_R@5,i2t_R@10,t2i_mAP,i2i_mAP",
        "10,2.5,0.001,,,,,,,,,",
        "20,1.25,,,,,0.333333,,,,,",
    ]
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    assert events(path)[0].file_version == "brain.Event:2"
    assert curve(tmp_path / "run", "loss") == {10: 2.5, 20: 1.25}
    assert curve(tmp_path / "run", "t2i_R@10") == {20: pytest.approx(1 / 3)}


def test_all_is_on_the_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    """A kill takes nothing with it: no thread, no buffer."""
    logs = Logs(tmp_path, 0)
    for step in (1, 2, 3):
        logs.write(step, {"loss": float(step)})
        assert [row["step"] for row in read(tmp_path / "log.csv")] == [str(one) for one in range(1, step + 1)]
        assert curve(tmp_path, "loss") == {one: float(one) for one in range(1, step + 1)}


def test_rows_beyond_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    first = Logs(tmp_path, 0)
    for step in (10, 20, 30):
        first.write(step, {"loss": 1.0})
    again = Logs(tmp_path, 20)
    assert [row["step"] for row in read(tmp_path / "log.csv")] == ["10", "20"]
    assert curve(tmp_path, "loss") == {10: 1.0, 20: 1.0}
    again.write(30, {"loss": 5.0})
    assert [row["loss"] for row in read(tmp_path / "log.csv")] == ["1", "1", "5"]
    assert curve(tmp_path, "loss") == {10: 1.0, 20: 1.0, 30: 5.0}
    Logs(tmp_path, 0)
    assert read(tmp_path / "log.csv") == [] and curve(tmp_path, "loss") == {}


@pytest.mark.parametrize("torn", ["3", "30,0.5", "30,0.5,,,,,,,,,", "\x00\x00\x00"])
def test_a_row_that_a_crash_cut_off_is_no_row(torn: str, tmp_path: Path) -> None:
    """`3` of `30` would look like a row before the checkpoint."""
    Logs(tmp_path, 0).write(10, {"loss": 1.0})
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write(torn)
    assert [row["step"] for row in read(tmp_path / "log.csv")] == ["10"]
    Logs(tmp_path, 40).write(50, {"loss": 2.0})
    assert [row["step"] for row in read(tmp_path / "log.csv")] == ["10", "50"]


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "log.csv") == []


def test_unknown_figures_and_places_that_cannot_be(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "run", 0)
    with pytest.raises(UsageError, match=r"no column for R@7; it has step, loss"):
        logs.write(1, {"loss": 1.0, "R@7": 0.5})
    assert read(tmp_path / "run" / "log.csv") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(MMSearchError, match=r"^The log in .* cannot be written \(.*\)\. Make room or name another"):
        Logs(tmp_path / "file", 0)
