"""Names, files, fingerprints, and fetching weights from a hub of our own."""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsearch.encoders.openclip import OpenClipEncoder
from mmsearch.encoders.openclip_files import architectures, pull, resolve, weights_here
from mmsearch.encoders.openclip_library import open_clip
from mmsearch.errors import (
    ModelError,
    UnknownModelError,
    WeightsNotFoundError,
)
from tests.tiny_openclip import NAMES, TEXTS, TINY, new_model, picture, transform, unit, write_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def model(made: tuple[Any, Path]) -> Any:
    return made[0]


@pytest.fixture(scope="module")
def checkpoint(made: tuple[Any, Path]) -> Path:
    return made[1]


def test_names(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = f"mmsearch-tiny/{checkpoint}"
    assert resolve(absolute).name == absolute
    monkeypatch.chdir(checkpoint.parent)
    for relative in ("mmsearch-tiny/./tiny.pt", "mmsearch-tiny/tiny.pt"):
        assert resolve(relative).name == absolute  # a collection is used from other folders too
    with pytest.raises(UnknownModelError, match=r"neither a file nor a tag of mmsearch-tiny\. It has no published"):
        resolve("mmsearch-tiny/other.pt")
    with pytest.raises(UnknownModelError, match=r"did you mean ViT-B-32/openai\? Its tags are openai, laion400m"):
        resolve("ViT-B-32/opneai")
    with pytest.raises(UnknownModelError, match="did you mean ViT-B-32/laion2b_s34b_b79k"):
        resolve("ViT-B-32/laion2b-s34b-b79k")  # another spelling would be another name for one space
    with pytest.raises(ModelError, match="only squares"):
        resolve(f"mmsearch-tiny-oblong/{checkpoint}")


def test_architectures_with_and_without_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = architectures()
    assert set(NAMES) < set(loaded)
    monkeypatch.delitem(sys.modules, "open_clip")
    assert set(architectures()) == set(loaded) - set(NAMES)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert architectures() == []


def test_fingerprint(checkpoint: Path, model: Any, tmp_path: Path) -> None:
    source = resolve(f"mmsearch-tiny/{checkpoint}")
    assert len(source.fingerprint()) == 64
    copy = tmp_path / "copy.pt"
    copy.write_bytes(checkpoint.read_bytes())
    assert resolve(f"mmsearch-tiny/{copy}").fingerprint() == source.fingerprint()  # the place is no part of it
    quick = resolve(f"mmsearch-tiny-quickgelu/{copy}").fingerprint()
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": {"resize_mode": "squash"}}))
    squash = resolve(f"mmsearch-tiny/{copy}").fingerprint()
    (tmp_path / "open_clip_config.json").unlink()
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    flipped = resolve(f"mmsearch-tiny/{copy}").fingerprint()
    assert len({source.fingerprint(), quick, squash, flipped}) == 4
    gone = resolve(f"mmsearch-tiny/{copy}")
    copy.unlink()
    with pytest.raises(WeightsNotFoundError, match=r"copy\.pt cannot be read \(No such file"):
        gone.fingerprint()


def test_a_configuration_beside_the_checkpoint_counts(checkpoint: Path, model: Any, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(checkpoint.read_bytes())
    config = tmp_path / "open_clip_config.json"
    preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "resize_mode": "squash", "size": 32}
    config.write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocessing}))
    encoder = OpenClipEncoder(f"mmsearch-tiny/{tmp_path / 'w.pt'}", device="cpu")
    with torch.no_grad():
        expected = unit(model.encode_image(transform(**preprocessing)(picture(90, 40))[None]))
    np.testing.assert_allclose(encoder.encode_images([encoder.prepare(picture(90, 40))]), expected, atol=1e-6)
    for content in ("{", "[]", "{}"):
        config.write_text(content)
        with pytest.raises(ModelError, match="lies beside the checkpoint and cannot be used"):
            resolve(f"mmsearch-tiny/{tmp_path / 'w.pt'}")


def test_a_file_of_a_published_architecture_is_prepared_as_that_was(checkpoint: Path) -> None:
    assert resolve(f"ViT-B-16-SigLIP/{checkpoint}").preprocessing == {
        "size": 224,
        "mode": "RGB",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    }
    # The published weights of ViT-L-14 disagree; then it is open_clip's default.
    assert resolve(f"ViT-L-14/{checkpoint}").preprocessing["mean"] == (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and published weights `tag` and `quick` for the tiny architecture."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    facts = {"hf_hub": "someone/tiny/", "mean": (0.5, 0.5, 0.5), "std": (0.3, 0.3, 0.3), "interpolation": "bilinear"}
    tags = {"tag": facts, "quick": {**facts, "hf_hub": "someone/quick/w.pth", "quick_gelu": True}}
    monkeypatch.setitem(open_clip().pretrained._PRETRAINED, "mmsearch-tiny", tags)
    words_tags = {"tag": {"hf_hub": "someone/words/"}}
    monkeypatch.setitem(open_clip().pretrained._PRETRAINED, "mmsearch-tiny-words", words_tags)
    return tmp_path / "hub"


def put(cache: Path, repository: str, file: str, content: bytes) -> Path:
    """Lay a file into the cache as huggingface_hub does."""
    commit = "0123456789" * 4
    folder = cache / f"models--{repository.replace('/', '--')}"
    path = folder / "snapshots" / commit / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return path


def test_weights_that_are_not_here(cache: Path) -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        OpenClipEncoder("mmsearch-tiny/tag")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("mmsearch-tiny/tag", str(cache), "mmsearch models pull mmsearch-tiny/tag", "`lite`", "/FILE"):
        assert part in message
    assert not cache.exists()


def test_weights_that_are_here(cache: Path, checkpoint: Path, model: Any) -> None:
    file = put(cache, "someone/tiny", "open_clip_pytorch_model.bin", checkpoint.read_bytes())
    assert weights_here() == {"mmsearch-tiny/tag": file}
    assert pull("mmsearch-tiny/tag") == file  # no network needed
    encoder = OpenClipEncoder("mmsearch-tiny/tag", device="cpu")
    assert encoder.space.name == "mmsearch-tiny/tag"
    expected_transform = transform(size=32, mean=(0.5,) * 3, std=(0.3,) * 3, interpolation="bilinear")
    with torch.no_grad():
        expected = unit(model.encode_image(expected_transform(picture(90, 40))[None]))
    np.testing.assert_allclose(encoder.encode_images([encoder.prepare(picture(90, 40))]), expected, atol=1e-6)


def test_a_tag_knows_its_activation(cache: Path, checkpoint: Path) -> None:
    """open_clip warns of a QuickGELU mismatch and goes on with the wrong activation."""
    put(cache, "someone/quick", "w.safetensors", b"")  # comes first where both are here
    put(cache, "someone/quick", "w.safetensors", checkpoint.read_bytes()).rename(checkpoint.parent / "moved")
    put(cache, "someone/quick", "w.pth", checkpoint.read_bytes())
    tagged = OpenClipEncoder("mmsearch-tiny/quick", device="cpu")
    plain = OpenClipEncoder(f"mmsearch-tiny/{checkpoint}", device="cpu").encode_texts(TEXTS)
    quick = OpenClipEncoder(f"mmsearch-tiny-quickgelu/{checkpoint}", device="cpu").encode_texts(TEXTS)
    np.testing.assert_allclose(tagged.encode_texts(TEXTS), quick, atol=1e-6)
    assert np.abs(quick - plain).max() > 1e-3


def test_a_tag_goes_before_a_file_of_that_name(
    cache: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tag").write_bytes(checkpoint.read_bytes())
    with pytest.raises(WeightsNotFoundError):
        resolve("mmsearch-tiny/tag")
    assert resolve("mmsearch-tiny/./tag").weights == tmp_path / "tag"


def test_pulling_without_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"mmsearch-tiny/tag could not be fetched \(ConnectionError: HF_HUB_OFFLINE"):
        pull("mmsearch-tiny/tag")
    with pytest.raises(UnknownModelError, match="Its tags are tag, quick"):
        pull("mmsearch-tiny/other")


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of a model hub that downloads need. files: (repository, name) -> bytes."""

    files: dict[tuple[str, str], bytes]
    asked: list[str]
    commit = "abcdef0123" * 4

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0].removeprefix("/")
        if path.startswith("api/models/"):
            repository = "/".join(path.split("/")[2:4])
            names = sorted(name for owner, name in self.files if owner == repository)
            if "/tree/" in path:
                tree = [{"type": "file", "path": n, "size": len(self.files[repository, n]), "oid": n} for n in names]
                self.send(json.dumps(tree).encode(), body)
            else:
                info = {"id": repository, "sha": self.commit, "siblings": [{"rfilename": name} for name in names]}
                self.send(json.dumps(info).encode(), body)
            return
        repository, _, rest = path.partition("/resolve/")
        content = self.files.get((repository, rest.partition("/")[2]))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send(content, body)

    def send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine that every download goes to."""
    handler = type("TinyHub", (Hub,), {"files": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def words() -> dict[str, bytes]:
    """A word-level tokenizer as published ones are laid out."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<pad>": 0, "<unk>": 1, "a": 2, "red": 3, "car": 4, "dog": 5}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}


WORDS = ["a red car", "dog"]
TOKENS = torch.zeros(2, 16, dtype=torch.long)
TOKENS[0, :3], TOKENS[1, :1] = torch.tensor([2, 3, 4]), torch.tensor([5])


def test_pull(cache: Path, hub: type[Hub], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Weights and tokenizer are fetched, with progress and in silence; then nobody asks the hub any more."""
    model, file = write_checkpoint(tmp_path, "mmsearch-tiny-words")
    weights = file.read_bytes()
    hub.files["someone/words", "open_clip_pytorch_model.bin"] = weights
    for name, content in words().items():
        hub.files["someone/words", name] = content
    hub.files["someone/words", "model.bin"] = b"not asked for"
    seen: list[tuple[int, int]] = []
    path = pull("mmsearch-tiny-words/tag", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == weights
    assert path.is_relative_to(cache)
    assert seen[-1] == (len(weights), len(weights))
    assert not any("model.bin" in asked and "pytorch" not in asked for asked in hub.asked)
    assert capfd.readouterr() == ("", "")

    hub.asked.clear()
    with torch.no_grad():
        expected = unit(model.encode_text(TOKENS))
    rows = OpenClipEncoder("mmsearch-tiny-words/tag", device="cpu").encode_texts(WORDS)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert hub.asked == []


def test_what_the_hub_does_not_have(cache: Path, hub: type[Hub]) -> None:
    with pytest.raises(ModelError, match=r"mmsearch-tiny/tag could not be fetched .*EntryNotFound"):
        pull("mmsearch-tiny/tag")
    assert len(hub.asked) == 2  # the two names under which weights are published


def test_pulling_without_network_fails_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    started = time.monotonic()
    with pytest.raises(
        ModelError, match=r"mmsearch-tiny/tag could not be fetched \(ConnectError.*`lite` works"
    ) as caught:
        pull("mmsearch-tiny/tag")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


def test_text_files_that_are_not_here(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    _, file = write_checkpoint(tmp_path, "mmsearch-tiny-words")
    encoder = OpenClipEncoder(f"mmsearch-tiny-words/{file}", device="cpu")
    with pytest.raises(WeightsNotFoundError, match=r"text files \(someone/words\) of mmsearch-tiny-words/"):
        encoder.encode_texts(WORDS)
    for name, content in words().items():
        put(cache, "someone/words", name, content[:40])
    with pytest.raises(ModelError, match="cannot be read"):
        encoder.encode_texts(WORDS)


def test_a_text_tower_of_transformers(cache: Path, tmp_path: Path) -> None:
    """Its configuration and tokenizer come from the cache, its weights from the checkpoint, nothing from a hub."""
    config = {"model_type": "roberta", "vocab_size": 10, "hidden_size": 32, "num_hidden_layers": 1, "pad_token_id": 0}
    config |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20}
    for name, content in {**words(), "config.json": json.dumps(config).encode()}.items():
        folder = put(cache, "someone/roberta", name, content).parent
        put(cache, "someone/words", name, content)
    text = {**NAMES["mmsearch-tiny-roberta"]["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
    model = new_model("mmsearch-tiny-roberta", pretrained_text=False, text_cfg=text)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    encoder = OpenClipEncoder(f"mmsearch-tiny-roberta/{tmp_path / 'w.pt'}", device="cpu")
    with torch.no_grad():
        expected = unit(model.encode_text(TOKENS))
    np.testing.assert_allclose(encoder.encode_texts(WORDS), expected, atol=1e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
