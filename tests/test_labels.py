"""Lists of labels, and the vectors that stand for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmsearch import labels as module
from mmsearch.errors import UsageError
from mmsearch.labels import Label, label_bank, label_vectors, read_labels
from mmsearch.relevance import Calibration, Scale
from mmsearch.wording import prompts
from tests.toy import ToyEncoder


class Steps(Calibration):
    """A calibration of its own for each vector: the first number of the vector moves the middle."""

    kind = "collection"

    def __init__(self) -> None:
        pass

    def scale(self, query, direction, best=None, among=1000):  # type: ignore[no-untyped-def]
        assert direction == "t2i"
        return Scale(20.0, -20.0 * (0.5 + 0.1 * float(query[0])))


@dataclass
class Words:
    """Each text is one unit vector; `texts` counts."""

    texts: int = 0

    @property
    def space(self):  # type: ignore[no-untyped-def]
        return ToyEncoder("words").space

    def encode_texts(self, texts):  # type: ignore[no-untyped-def]
        self.texts += len(texts)
        rows = [np.random.default_rng(list(text.encode())).normal(size=13) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def test_a_file_has_names_prompts_and_remarks(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "\ufefflabel,prompt\n# remark\n\n  apple \nOur  dog, Rex in the garden\n"
        'our dog,"Rex, asleep"\nApple\nblue sky\n',
        "utf-8",
    )
    assert read_labels(path) == [
        Label("apple", tuple(prompts("apple"))),
        Label("Our dog", ("Rex in the garden", "Rex, asleep")),
        Label("blue sky", tuple(prompts("blue sky"))),
    ]
    assert read_labels(str(path)) == read_labels(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"cat\n,a photo\n", "line 2: A tag must not be empty"),
        (b"cat\ndog,\n", "line 2: the prompt is empty"),
        (b"cat\n\n# x\ndog,a,b\n", "line 4: it has 3 columns"),
        (b'cat\n"dog\n', "line 2: "),
        (b"cat\nd\x07g\n", "line 2: The tag"),
        (b"cat\n" + b"x" * 101 + b"\n", "line 2: The tag"),
        (b"cat\ndog\n\xff\xfe\n", "line 3: not UTF-8"),
        (b"# nothing\n\n", "holds no labels"),
    ],
)
def test_a_bad_line_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.txt cannot be read: no such file"):
        read_labels(tmp_path / "nowhere.txt")


def test_names_stand_for_themselves_once() -> None:
    assert [label.name for label in read_labels(["cat", "Dog", "CAT", " dog "])] == ["cat", "Dog"]
    for bad in ([], [""], [3]):
        with pytest.raises(UsageError):
            read_labels(bad)  # type: ignore[arg-type]


def test_a_label_is_the_unit_mean_of_its_prompts() -> None:
    words = Words()
    given = [Label("a", ("one", "two", "three")), Label("b", ("four",)), Label("c", ("two", "five"))]
    found = label_vectors(words, given)  # type: ignore[arg-type]
    for row, label in zip(found, given, strict=True):
        mean = np.mean([words.encode_texts([sentence])[0].astype(float) for sentence in label.prompts], axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_long_lists_are_kept_and_made_anew_when_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cache_folder", lambda: tmp_path / "kept")
    many = read_labels([f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(90)])
    few = many[:10]
    words = Words()
    first = label_vectors(words, many)  # type: ignore[arg-type]
    sentences = sum(len(label.prompts) for label in many)
    assert words.texts == sentences
    np.testing.assert_array_equal(label_vectors(words, many), first)  # type: ignore[arg-type]
    assert words.texts == sentences
    (kept,) = (tmp_path / "kept").iterdir()

    label_vectors(words, few)  # type: ignore[arg-type]
    label_vectors(words, few)  # type: ignore[arg-type]
    assert words.texts == sentences + 2 * 10 * len(few[0].prompts)  # short lists are not worth a file

    for damage in (b"", b"nothing", kept.read_bytes()[:-40], kept.read_bytes()[:-4] + b"\0\0\x80\x7f"):
        kept.write_bytes(damage)
        np.testing.assert_array_equal(label_vectors(words, many), first)  # type: ignore[arg-type]
        assert kept.stat().st_size > 1000
    monkeypatch.setattr(words.__class__, "space", property(lambda _: ToyEncoder("other words").space))
    before = words.texts
    label_vectors(words, many)  # type: ignore[arg-type]
    assert words.texts == before + sentences  # other weights, other vectors


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(module, "_cache_folder", lambda: tmp_path / "file" / "labels")
    many = read_labels([f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(90)])
    assert label_vectors(Words(), many).shape == (90, 13)  # type: ignore[arg-type]


def test_probabilities_follow_each_labels_own_calibration() -> None:
    given = [Label(name, (name,)) for name in ("one", "two", "three", "four")]
    bank = label_bank(Words(), given, Steps())  # type: ignore[arg-type]
    rows = Words().encode_texts(["one", "two", "something else"])
    found = bank.probabilities(bank.scores(rows))
    assert found is not None
    for i, row in enumerate(rows):
        for j, vector in enumerate(bank.vectors):
            middle = 0.5 + 0.1 * float(vector[0])
            expected = 1 / (1 + np.exp(-20 * (float(row.astype(float) @ vector.astype(float)) - middle)))
            assert found[i, j] == pytest.approx(expected, abs=1e-5)
    best = bank.best(rows[1], 2)
    assert best[0].label == "two"
    assert best[0].score == pytest.approx(1, abs=1e-6)
    assert best[0].probability == pytest.approx(found[1].max())
    assert len(best) == 2


def test_without_a_calibration_the_cosine_decides() -> None:
    bank = label_bank(Words(), [Label(name, (name,)) for name in ("one", "two")], None)  # type: ignore[arg-type]
    assert bank.probabilities(bank.scores(bank.vectors)) is None
    best = bank.best(bank.vectors[1], 5)
    assert [one.label for one in best] == ["two", "one"]
    assert best[0].probability is None
