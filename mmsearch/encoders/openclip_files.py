"""open_clip's names -> the files and the configuration that make an encoder. Only `pull` uses the network.

Weights are kept where every other program that uses open_clip keeps them: in the Hugging Face cache (HF_HOME or
HF_HUB_CACHE move it, HF_HUB_OFFLINE is respected). So what is on a machine already is used, and is not stored twice.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from mmsearch.encoders.openclip_library import open_clip, quiet
from mmsearch.errors import MissingExtraError, ModelError, UnknownModelError, WeightsNotFoundError

BESIDE = "open_clip_config.json"  # what published weights carry with them
TEXT_FILES = ["*.json", "*.txt", "*.model"]  # a tokenizer and the configuration of a text tower, no weights


@dataclass(frozen=True, slots=True)
class Source:
    """All that makes an encoder. Equal weights, config and preprocessing mean equal vectors.

    name: as it is stored beside vectors; a file's place is absolute in it. weights: the checkpoint.
    config: of the architecture, `quick_gelu` as the weights need it. preprocessing: size, mean, std (of 0-1 values),
    interpolation, resize_mode, fill_color, in open_clip's words.
    """

    name: str
    architecture: str
    weights: Path
    config: dict[str, Any]
    preprocessing: dict[str, Any]

    def fingerprint(self) -> str:
        """sha256 over the bytes of the weights file, the configuration and the preprocessing, as hex.
        Raises WeightsNotFoundError where the file has gone or cannot be read."""
        try:
            with self.weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise WeightsNotFoundError(f"{self.weights} cannot be read ({error.strerror}); put it back.") from error
        digest.update(json.dumps([self.config, self.preprocessing], sort_keys=True).encode())
        return digest.hexdigest()


def architectures() -> list[str]:
    """The architectures of the installed open_clip, those added with `open_clip.add_model_config` included.
    Empty without open_clip. Imports nothing."""
    loaded: Any = sys.modules.get("open_clip")
    if loaded is not None:
        return list(loaded.list_models())
    found = find_spec("open_clip")
    if found is None or found.origin is None:
        return []
    return sorted(path.stem for path in (Path(found.origin).parent / "model_configs").glob("*.json"))


def resolve(name: str) -> Source:
    """`ARCHITECTURE/TAG` or `ARCHITECTURE/FILE` -> its source, with weights that are on this machine.

    A tag goes before a file of the same name, so that a name means the same in every folder (`./openai` is the file).
    A checkpoint file does not say how its pictures were prepared. It is taken from an `open_clip_config.json` in its
    folder, else from the published weights of its architecture where they agree, else it is open_clip's default.
    Raises UnknownModelError, WeightsNotFoundError, ModelError.
    """
    architecture, _, rest = name.partition("/")
    with quiet():
        config = open_clip().get_model_config(architecture)
    if config is None:
        raise UnknownModelError(f"There is no open_clip architecture {architecture!r}; `mmsearch models` shows names.")
    tag = _tag(architecture, rest)
    file = Path(rest).expanduser().absolute()
    if tag is not None:
        weights = _weights_here(tag)
        if weights is None:
            raise WeightsNotFoundError(_not_here(name, "the weights"))
        return _source(name, architecture, weights, config, tag)
    if file.is_file():
        return _source(f"{architecture}/{file}", architecture, file, config, _facts_of_file(architecture, file))
    tags = open_clip().list_pretrained_tags_by_model(architecture)
    near = difflib.get_close_matches(rest, tags, 1)
    raise UnknownModelError(
        f"{rest!r} is neither a file nor a tag of {architecture}"
        + (f"; did you mean {architecture}/{near[0]}?" if near else ".")
        + (f" Its tags are {', '.join(tags)}." if tags else " It has no published weights; name a checkpoint file.")
    )


def weights_here() -> dict[str, Path]:
    """Names of all published models whose weights are on this machine -> their files. Empty without open_clip."""
    if find_spec("open_clip") is None:
        return {}
    found = {f"{a}/{tag}": _weights_here(_tag(a, tag) or {}) for a, tag in open_clip().list_pretrained()}
    return {name: path for name, path in found.items() if path is not None}


def text_folder(source: Source, key: str) -> Path | None:
    """Where the files of a tokenizer or text tower lie that the architecture takes from elsewhere.

    key: `hf_tokenizer_name` or `hf_model_name` of its text configuration; None where it has no such key.
    Raises WeightsNotFoundError, MissingExtraError.
    """
    repository = source.config["text_cfg"].get(key)
    if not repository:
        return None
    if find_spec("transformers") is None:
        raise MissingExtraError(f"The texts of {source.name} need transformers: pip install 'mmsearch[clip]'")
    from huggingface_hub import try_to_load_from_cache

    for file in ("tokenizer_config.json", "config.json"):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found).parent
    raise WeightsNotFoundError(_not_here(source.name, f"the text files ({repository})"))


def pull(name: str, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch the weights and, where the architecture takes them from elsewhere, the text files. -> the weights.

    What is here is not fetched again. A broken download is resumed by the next call.
    Raises UnknownModelError, MissingExtraError, ModelError.
    """
    architecture, _, rest = name.partition("/")
    library = open_clip()
    tag = _tag(architecture, rest)
    if tag is None:
        return resolve(name).weights  # a local file, or an error that lists the tags
    weights = _weights_here(tag)
    text = library.get_model_config(architecture)["text_cfg"]
    repositories = {text[key] for key in ("hf_tokenizer_name", "hf_model_name") if text.get(key)}
    if weights is not None and not repositories:
        return weights
    from huggingface_hub import constants, snapshot_download

    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with quiet():
            weights = weights or _download(tag, _bar(on_progress))
            for repository in sorted(repositories):
                snapshot_download(repository, allow_patterns=TEXT_FILES, tqdm_class=_bar(None))
    except Exception as error:  # of several libraries: no connection, no room, no permission, no such file
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelError(
            f"{name} could not be fetched ({reason}); what has arrived is kept, so try again when the network is "
            f"there. Offline, `lite` works, and a local checkpoint as {architecture}/FILE."
        ) from error
    return weights


def _source(name: str, architecture: str, weights: Path, config: dict[str, Any], facts: dict[str, Any]) -> Source:
    """facts: what is known about these weights, preprocessing and `quick_gelu` among others."""
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    # The tag's word, as open_clip itself warns but goes on with the wrong activation.
    config = {**config, "quick_gelu": bool(config.get("quick_gelu") or facts.get("quick_gelu"))}
    size = config["vision_cfg"].get("image_size", 224)
    if not isinstance(size, int):
        raise ModelError(f"{architecture} reads pictures of {size} pixels; only squares are supported.")
    preprocessing = {**asdict(PreprocessCfg()), **merge_preprocess_dict({}, facts), "size": size}
    return Source(name, architecture, weights, config, preprocessing)


def _facts_of_file(architecture: str, file: Path) -> dict[str, Any]:
    beside = file.parent / BESIDE
    if beside.is_file():
        try:
            content = json.loads(beside.read_text("utf-8"))
            quick_gelu = content.get("model_cfg", {}).get("quick_gelu", False)
            return {**content["preprocess_cfg"], "quick_gelu": quick_gelu}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{beside} lies beside the checkpoint and cannot be used ({type(error).__name__}: {error}); "
                "mend or remove it."
            ) from error
    from open_clip.transform import merge_preprocess_dict

    tags = open_clip().list_pretrained_tags_by_model(architecture)
    published = [merge_preprocess_dict({}, _tag(architecture, tag) or {}) for tag in tags]
    agreed = bool(published) and all(entry == published[0] for entry in published)
    return published[0] if agreed else {}


def _tag(architecture: str, tag: str) -> dict[str, Any] | None:
    """open_clip's facts about published weights. Its own lookup takes other spellings of a tag too; we do not, so
    that one space has one name."""
    if tag not in open_clip().list_pretrained_tags_by_model(architecture):
        return None
    facts: dict[str, Any] = open_clip().get_pretrained_cfg(architecture, tag)
    return facts


def _remote_files(tag: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(repository, file) in the order of preference: safetensors first, as open_clip does."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    if not repository:
        return
    file = file or HF_WEIGHTS_NAME
    yield repository, HF_SAFE_WEIGHTS_NAME if file == HF_WEIGHTS_NAME else str(Path(file).with_suffix(".safetensors"))
    yield repository, file


def _weights_here(tag: dict[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for repository, file in _remote_files(tag):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(tag: dict[str, Any], bar: type[Any]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    missing: Exception = LookupError("open_clip names no place to fetch it from")
    for repository, file in _remote_files(tag):
        try:
            get_hf_file_metadata(hf_hub_url(repository, file))  # fails at once without network; the next line retries
            return Path(hf_hub_download(repository, file, tqdm_class=bar))
        except RemoteEntryNotFoundError as error:
            missing = error
    raise missing


def _bar(on_progress: Callable[[int, int], None] | None) -> type[Any]:
    """A progress bar, as huggingface_hub asks for one, that prints nothing and reports bytes done and in total."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": False, "file": StringIO()})

        def display(self, *_args: Any, **_options: Any) -> None:
            if on_progress is not None:
                on_progress(int(self.n), int(self.total or 0))

        def clear(self, *_args: Any, **_options: Any) -> None:
            pass

    return Bar


def _not_here(name: str, what: str) -> str:
    from huggingface_hub import constants

    return (
        f"{what[0].upper()}{what[1:]} of {name} are not on this machine (looked in {constants.HF_HUB_CACHE}); "
        f"fetch them once with `mmsearch models pull {name}`. Offline, `lite` works, and a local checkpoint as "
        f"{name.partition('/')[0]}/FILE."
    )
