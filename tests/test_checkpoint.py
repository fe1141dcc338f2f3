"""A checkpoint comes back as it was, or is refused; and whatever fails, the old one stays."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
safetensors_torch = pytest.importorskip("safetensors.torch")

from torch import nn  # noqa: E402

from mmsearch.errors import MMSearchError, WeightsMismatchError, WeightsNotFoundError  # noqa: E402
from mmsearch.nn import checkpoint  # noqa: E402

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
FACTS = {"step": 3, "recipe": {"name": "clip", "rate": 1e-3}, "dev": [1.5, None], "name": "größe"}


@settings(deadline=None, max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4),
    types=st.lists(st.sampled_from(TYPES), min_size=4, max_size=4),
)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], types: Any) -> None:
    tensors = {
        f"layer.{i}": (torch.randn(shape) * 3).to(kind)
        for i, (shape, kind) in enumerate(zip(shapes, types, strict=False))
    }
    path = tmp_path_factory.mktemp("one") / "a.safetensors"
    checkpoint.save(path, tensors, FACTS)
    loaded, facts = checkpoint.load(path)
    assert facts == FACTS
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_views_and_tensors_that_share_memory_are_saved_by_value(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)
    tied = nn.Linear(3, 3)
    checkpoint.save(tmp_path / "a", {"all": whole, "turned": whole.T, "row": whole[1], "w": tied.weight}, {})
    loaded, _ = checkpoint.load(tmp_path / "a")
    assert loaded["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded["row"].tolist() == [3, 4, 5]
    assert not loaded["w"].requires_grad


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.safetensors", {"x": torch.arange(3)}, FACTS)
    assert safetensors_torch.load_file(tmp_path / "a.safetensors")["x"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_fingerprint_by_hand() -> None:
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0]]))
    wanted = hashlib.sha256(b"\nweight torch.float32 (1, 2)\n" + struct.pack("<2f", 1.0, -2.0)).hexdigest()
    assert checkpoint.fingerprint(module) == wanted


def test_the_fingerprint_tells_names_types_and_shapes_apart() -> None:
    class Holder(nn.Module):
        def __init__(self, name: str, tensor: Any) -> None:
            super().__init__()
            self.register_buffer(name, tensor)

    zeros = torch.zeros(2, 2)
    variants = [
        Holder("a", zeros), Holder("b", zeros), Holder("a", zeros.view(4)), Holder("a", zeros.to(torch.int32)),
        Holder("a", zeros + 1), Holder("a", torch.zeros(2, 2, dtype=torch.bfloat16)),
    ]  # fmt: skip
    assert len({checkpoint.fingerprint(one) for one in variants}) == len(variants)
    assert checkpoint.fingerprint(Holder("a", torch.zeros(2, 2).T)) == checkpoint.fingerprint(variants[0])


@pytest.mark.parametrize("position", [3, 40, 300, -1, -9])
def test_a_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, {"x": torch.randn(50)}, FACTS)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsMismatchError, match=r"damaged|was not written by"):
        checkpoint.load(path)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, {"x": torch.randn(50)}, FACTS)
    whole = path.read_bytes()
    for content in (b"", b"x", whole[:-1], whole[:200], b"\xff" * 300, whole + b"more"):
        path.write_bytes(content)
        with pytest.raises(WeightsMismatchError, match="damaged or no checkpoint"):
            checkpoint.load(path)
    safetensors_torch.save_file({"x": torch.randn(3)}, path)
    with pytest.raises(WeightsMismatchError, match="not written by mmsearch's training"):
        checkpoint.load(path)
    torch.save({"x": torch.randn(3)}, path)
    with pytest.raises(WeightsMismatchError, match="damaged or no checkpoint"):
        checkpoint.load(path)
    with pytest.raises(WeightsNotFoundError, match="is not there"):
        checkpoint.load(tmp_path / "b")


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> Callable[[], int]:
    """The call-th of all writes, fsyncs and renames fails. -> how many there were."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise error
            return function(*arguments, **options)

        return run

    opened = builtins.open

    def open_counted(path: Path, *arguments: Any, **options: Any) -> Any:
        file = counted(opened)(path, *arguments, **options)

        class Watched:
            def __enter__(self) -> Any:
                file.__enter__()
                return self

            def __exit__(self, *reason: Any) -> None:
                file.__exit__(*reason)

            write = staticmethod(counted(file.write))
            flush = staticmethod(counted(file.flush))
            fileno = staticmethod(file.fileno)

        return Watched()

    monkeypatch.setattr(Path, "open", open_counted)
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(checkpoint, "_CHUNK", 200)
    return lambda: calls


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", ["full", "killed"])
def test_whatever_fails_the_old_file_or_the_new_one_is_whole(tmp_path: Path, kind: str) -> None:
    path, old, new = tmp_path / "a", {"x": torch.zeros(150)}, {"x": torch.ones(150)}
    error: BaseException = FULL if kind == "full" else KeyboardInterrupt()
    call, done = 0, False
    while not done:
        call += 1
        checkpoint.save(path, old, {"step": 1})
        with pytest.MonkeyPatch.context() as patch:
            count = fail_at(patch, call, error)
            try:
                checkpoint.save(path, new, {"step": 2})
                done = True
            except MMSearchError as raised:
                assert kind == "full"
                assert str(raised).startswith(f"{path} cannot be written (No space left on device)")
            except KeyboardInterrupt:
                assert kind == "killed"
            total = count()
        tensors, facts = checkpoint.load(path)
        assert (facts["step"], tensors["x"].sum().item()) in ((1, 0), (2, 150))
        assert facts["step"] == 1 or call >= total  # only after the rename, when the folder is synced
        assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert call > 7  # opening, several writes, flush, two fsyncs, a rename


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(b"half" * 1000)
    checkpoint.save(tmp_path / "a", {"x": torch.ones(4)}, {"step": 2})
    assert checkpoint.load(tmp_path / "a")[1] == {"step": 2}
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_facts_are_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "a", {}, {"x": object()})
    assert list(tmp_path.iterdir()) == []
    checkpoint.save(tmp_path / "new" / "a", {}, {"deep": {"list": [1, "2"]}})
    assert json.dumps(checkpoint.load(tmp_path / "new" / "a")[1]) == '{"deep": {"list": [1, "2"]}}'
