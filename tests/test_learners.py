"""The learners: what they make of a batch, that rows stand alone, what is hidden, and who follows whom. One file for
all of them, long as it is, because they share the batch and the table of what holds for each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from torch import nn  # noqa: E402

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.nn.dual_encoder import DualEncoder  # noqa: E402
from mmsearch.nn.heads import LinearHead  # noqa: E402
from mmsearch.nn.towers.transformer import TextTransformer  # noqa: E402
from mmsearch.nn.towers.vit import ViT  # noqa: E402
from mmsearch.nn.towers.words import WordBag  # noqa: E402
from mmsearch.training.batch import Batch  # noqa: E402
from mmsearch.training.gradients import backward  # noqa: E402
from mmsearch.training.learners.average import follow, untrained_copy  # noqa: E402
from mmsearch.training.learners.contrastive import Contrastive  # noqa: E402
from mmsearch.training.learners.data2vec import Data2Vec  # noqa: E402
from mmsearch.training.learners.learner import Learner  # noqa: E402
from mmsearch.training.learners.masked_image import Decoder, MaskedImage, in_place  # noqa: E402
from mmsearch.training.learners.masked_language import MaskedLanguage  # noqa: E402
from mmsearch.training.learners.momentum import Momentum  # noqa: E402
from mmsearch.training.learners.skipgram import SkipGram  # noqa: E402
from mmsearch.training.learners.two_views import TwoViews  # noqa: E402
from mmsearch.training.objectives import objective_class  # noqa: E402
from mmsearch.training.outputs import Outputs, joined  # noqa: E402
from tests.tiny_tokenizer import learned_word_pieces  # noqa: E402

CONCEPTS = ("dog", "cat", "boat", "tree", "house", "bird")
TOKENIZER = learned_word_pieces([f"a {one} and a {two}" for one in CONCEPTS for two in CONCEPTS], 80)


def tokens(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    from tokenizers import Tokenizer

    reader = Tokenizer.from_str(TOKENIZER)
    reader.enable_padding()
    read = reader.encode_batch(texts)
    return torch.tensor([one.ids for one in read]), torch.tensor([one.attention_mask for one in read])


def pixels(n: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 16, 16, 3), dtype=torch.uint8, generator=draw)


def batch(n: int = 5) -> Batch:
    texts, mask = tokens(["a dog", "a cat and a tree", "boat", "a house and a bird", "a dog and a boat"][:n])
    draw = torch.Generator().manual_seed(1)
    return Batch(
        groups=torch.arange(n)[:, None],
        images=pixels(n),
        second=pixels(n, seed=1),
        texts=texts,
        mask=mask,
        teacher_images=torch.randn(n, 9, generator=draw).half(),
        teacher_texts=torch.randn(n, 9, generator=draw).half(),
    )


def vit() -> ViT:
    return ViT(side=16, patch=4, width=12, depth=3, heads=2, dropout=0.2)


def encoder() -> DualEncoder:
    return DualEncoder(vit(), WordBag(TOKENIZER, 10), LinearHead(12, 8), LinearHead(10, 8))


def text_tower() -> TextTransformer:
    return TextTransformer(TOKENIZER, width=16, depth=2, heads=2, max_tokens=12)


LEARNERS: dict[str, tuple[Callable[[], Learner], str]] = {
    "contrastive": (lambda: Contrastive(encoder()), "distillation"),
    "momentum": (lambda: Momentum(encoder()), "momentum"),
    "two_views": (lambda: TwoViews(vit(), projection_width=8), "ntxent"),
    "masked_image": (lambda: MaskedImage(vit(), decoder_width=8, decoder_depth=1, decoder_heads=2), "mae"),
    "data2vec": (lambda: Data2Vec(vit(), top_layers=2), "data2vec"),
    "masked_language": (lambda: MaskedLanguage(text_tower(), mask_ratio=0.4), "masked_language"),
    "skipgram": (lambda: SkipGram(encoder()), "skipgram"),
}


def made_by(name: str) -> tuple[Learner, nn.Module]:
    torch.manual_seed(0)
    learner, objective = LEARNERS[name]
    made = objective_class(objective)
    return learner(), made(width=8) if objective == "momentum" else made()


def said_by(learner: Learner, given: Batch, seed: int = 3) -> list[torch.Tensor]:
    """All tensors of the outputs, with random numbers from the same start."""
    torch.manual_seed(seed)
    found: list[torch.Tensor] = []
    learner(given).map(lambda t: found.append(t) or t)
    return found


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_a_row_depends_on_itself_alone(name: str) -> None:
    learner, _ = made_by(name)
    whole = batch()
    ids = whole.texts.clone()
    ids[0] = ids[0].flip(0)
    other = replace(whole, images=torch.cat([255 - whole.images[:1], whole.images[1:]]), texts=ids)
    for one, two in zip(said_by(learner, whole), said_by(learner, other), strict=True):
        torch.testing.assert_close(one[1:], two[1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_in_pieces_it_learns_what_the_pieces_together_teach(name: str) -> None:
    """The gradient cache runs each piece twice: with the same hidden places and the same dropout."""
    learner, objective = made_by(name)
    torch.manual_seed(3)
    loss = objective.eval()(joined([learner(piece) for piece in batch().pieces(2)]))
    loss.backward()
    wanted = {name: weight.grad for name, weight in learner.named_parameters()}
    learner.zero_grad()
    torch.manual_seed(3)
    assert backward(learner, objective, batch(), piece=2) == pytest.approx(loss.item(), abs=1e-6)
    learnt = 0
    for key, weight in learner.named_parameters():
        if wanted[key] is None:
            assert weight.grad is None or not weight.grad.any()
        else:
            learnt += 1
            torch.testing.assert_close(weight.grad, wanted[key], rtol=1e-4, atol=1e-6)
    assert learnt > 2


@pytest.mark.parametrize("name", LEARNERS)
def test_its_weights_come_back_from_a_file(name: str, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    learner, _ = made_by(name)
    save_file(learner.state_dict(), tmp_path / "learner.safetensors")
    torch.manual_seed(9)
    other = LEARNERS[name][0]()
    other.load_state_dict(load_file(tmp_path / "learner.safetensors"))
    for one, two in zip(said_by(learner, batch()), said_by(other, batch()), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("two_views", "images"),
        ("two_views", "second"),
        ("masked_image", "images"),
        ("data2vec", "images"),
        ("masked_language", "texts"),
        ("skipgram", "mask"),
    ],
)
def test_what_the_data_lack_is_named(name: str, part: str) -> None:
    learner, _ = made_by(name)
    with pytest.raises(UsageError, match=f"The learner {type(learner).__name__} needs {part}, which"):
        learner(replace(batch(), **{part: None}))


def test_only_learners_with_both_towers_have_an_encoder() -> None:
    assert {name for name in LEARNERS if hasattr(made_by(name)[0], "encoder")} == {
        "contrastive",
        "momentum",
        "skipgram",
    }


# --- contrastive, and the average that teaches ----------------------------------------------------------------------


def test_contrastive_by_hand_on_the_rows_of_locked_towers() -> None:
    torch.manual_seed(0)
    learner = Contrastive(DualEncoder(nn.Identity(), nn.Identity(), LinearHead(6, 4), LinearHead(3, 4)))
    looks, texts, teacher = torch.randn(5, 6), torch.randn(5, 3), torch.randn(5, 7).half()
    made = learner(Batch(groups=torch.arange(5)[:, None], images=looks, texts=texts, teacher_images=teacher))
    for got, rows, matrix in (
        (made.image, looks, learner.encoder.image_head.line.weight.detach()),
        (made.text, texts, learner.encoder.text_head.line.weight.detach()),
        (made.teacher_image, teacher.float(), torch.eye(7)),
    ):
        mapped = [[float(sum(w * x for w, x in zip(line, row, strict=True))) for line in matrix] for row in rows]
        wanted = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in mapped]
        torch.testing.assert_close(got.pooled, torch.tensor(wanted))
    assert made.second is made.teacher_text is made.targets is None
    assert made.groups[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_second_view_runs_through_the_same_tower() -> None:
    learner = TwoViews(vit(), projection_width=8).eval()
    made = learner(batch())
    swapped = learner(replace(batch(), images=batch().second, second=batch().images))
    assert torch.equal(made.second.pooled, swapped.image.pooled)
    assert not torch.equal(made.second.pooled, made.image.pooled)


@torch.no_grad()
def test_the_projection_by_hand() -> None:
    """max(0, x A + a) B + b, of unit length."""
    learner = TwoViews(vit(), projection_width=3).eval()
    made, pooled = learner(batch()).image.pooled, learner.tower(batch().images).pooled
    first, _, last = learner.project
    for got, row in zip(made.tolist(), pooled, strict=True):
        inner = [max(0.0, float(line @ row + more)) for line, more in zip(first.weight, first.bias, strict=True)]
        outer = [
            sum(w * x for w, x in zip(line, inner, strict=True)) + more
            for line, more in zip(last.weight.tolist(), last.bias.tolist(), strict=True)
        ]
        length = math.sqrt(sum(x * x for x in outer))
        assert got == pytest.approx([x / length for x in outer], abs=1e-5)


def test_two_views_learn_to_know_pictures_again() -> None:
    """Nine colours, each seen twice with noise: the views of one find each other among those of all."""
    torch.manual_seed(0)
    plain = 255 * torch.rand(9, 1, 1, 3).expand(-1, 16, 16, -1)

    def seen() -> Batch:
        noisy = [(plain + 15 * torch.randn_like(plain)).clamp(0, 255).to(torch.uint8) for _ in range(2)]
        return Batch(groups=torch.arange(9)[:, None], images=noisy[0], second=noisy[1])

    learner, objective = TwoViews(ViT(16, 4, 16, 2, 2), projection_width=8), objective_class("ntxent")()
    optimiser = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        losses.append(objective(learner(seen())))
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > 1.5 > 0.6 > sum(losses[-5:]) / 5


@pytest.mark.parametrize("name", ["momentum", "data2vec"])
def test_the_average_follows_slowly_and_is_never_trained(name: str) -> None:
    learner, objective = made_by(name)
    student = learner.encoder if name == "momentum" else learner.tower
    before = copy.deepcopy(learner.teacher.state_dict())
    assert all(torch.equal(weight, before[key]) for key, weight in student.state_dict().items())
    optimiser = torch.optim.AdamW(learner.parameters(), lr=0.1, weight_decay=0.5)
    objective(learner.train()(batch())).backward()
    optimiser.step()
    assert all(torch.equal(weight, before[key]) for key, weight in learner.teacher.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in learner.teacher.parameters())
    learner.after_step()
    moved = 0
    for key, weight in student.named_parameters():
        wanted = learner.momentum * before[key] + (1 - learner.momentum) * weight
        torch.testing.assert_close(learner.teacher.state_dict()[key], wanted.detach(), rtol=0, atol=1e-6)
        moved += not torch.equal(wanted, before[key])
    assert moved > 3


def test_the_average_takes_buffers_as_they_are() -> None:
    network = nn.BatchNorm1d(2)
    average = untrained_copy(network)
    network(torch.randn(8, 2) + 5)
    follow(average, network, 0.9)
    assert torch.equal(average.running_mean, network.running_mean)
    assert average.num_batches_tracked.item() == 1


def test_the_teacher_drops_nothing_out_while_the_student_does() -> None:
    learner, _ = made_by("momentum")
    learner.train()
    one, two = learner(batch()), learner(batch())
    assert torch.equal(one.teacher_image.pooled, two.teacher_image.pooled)
    assert not torch.equal(one.image.pooled, two.image.pooled)
    seen = learner.eval()(batch())
    assert torch.equal(seen.image.pooled, one.teacher_image.pooled)  # before any step they are the same
    assert not one.teacher_image.pooled.requires_grad


# --- hidden patches -------------------------------------------------------------------------------------------------


def change(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The pictures with other pixels at these patches (n, 16) of 4 x 4 pixels."""
    inside = places.view(-1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return torch.where(inside[..., None], 255 - images, images)


@pytest.mark.parametrize("name", ["masked_image", "data2vec"])
def test_what_is_hidden_is_not_seen_and_what_is_not_is(name: str) -> None:
    learner, _ = made_by(name)
    learner.eval()
    given = batch()
    torch.manual_seed(3)
    made = learner(given)
    hidden = made.targets.mask
    assert hidden.sum(1).tolist() == [{"masked_image": 12, "data2vec": 10}[name]] * 5
    assert len({tuple(row) for row in hidden.tolist()}) == 5  # each picture its own

    torch.manual_seed(3)
    other = learner(replace(given, images=change(given.images, hidden)))
    torch.testing.assert_close(other.image.tokens, made.image.tokens, rtol=0, atol=1e-6)
    assert not torch.equal(other.targets.tokens, made.targets.tokens)
    torch.manual_seed(3)
    seen = learner(replace(given, images=change(given.images, ~hidden)))
    assert not torch.allclose(seen.image.tokens, made.image.tokens, atol=1e-4)
    own = made.image.tokens[0][hidden[0]]
    assert (torch.cdist(own, own) + torch.eye(len(own)) > 1e-4).all()  # hidden places know where they are


def test_the_picture_to_paint_is_cut_row_by_row() -> None:
    learner, _ = made_by("masked_image")
    made, images = learner(batch()), batch().images
    for place in range(16):
        top, left = 4 * (place // 4), 4 * (place % 4)
        square = images[:, top : top + 4, left : left + 4].reshape(5, -1).float()
        torch.testing.assert_close(made.targets.tokens[:, place], square / 127.5 - 1, rtol=0, atol=1e-6)


def test_patches_come_back_to_their_places() -> None:
    rows = torch.tensor([[[10.0], [11.0], [12.0]]])  # a b c
    assert in_place(rows, torch.tensor([[2, 0, 1]])).flatten().tolist() == [11, 12, 10]  # b c a
    decoder = Decoder(in_width=2, patches=4, out=2, width=2, depth=1, heads=1)
    decoder.enter, decoder.blocks, decoder.leave = nn.Identity(), nn.Identity(), nn.Identity()
    seen = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # of the patches 3 and 1
    painted = decoder(torch.zeros(1, 2), seen, torch.tensor([[3, 1, 0, 2]])) - decoder.positions
    wanted = torch.stack([decoder.unseen, seen[0, 1], decoder.unseen, seen[0, 0]])
    torch.testing.assert_close(painted[0], wanted)


def test_masked_autoencoding_learns_to_paint() -> None:
    """Smooth pictures: brightness rises along one of eight directions. Without learning the loss is about 1."""
    torch.manual_seed(0)
    along = torch.arange(16) / 15
    waves = [a * along[:, None] + b * along[None] for a in (-1, 0.3, 1) for b in (-1, -0.3, 1)]
    grey = torch.stack([(255 * (w - w.min()) / (w.max() - w.min())) for w in waves])
    given = Batch(groups=torch.arange(9)[:, None], images=grey[..., None].expand(-1, -1, -1, 3).to(torch.uint8))
    learner = MaskedImage(ViT(16, 4, 16, 2, 2), mask_ratio=0.5, decoder_width=16, decoder_depth=1, decoder_heads=2)
    objective = objective_class("mae")()
    optimiser = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        optimiser.zero_grad()
        losses.append(objective(learner(given)))
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > 0.8 > 0.4 > sum(losses[-5:]) / 5


def test_data2vec_targets_are_normalised_layers_averaged() -> None:
    learner, _ = made_by("data2vec")
    made = learner(batch())
    states = learner.tower.eval().states(learner.tower.patches(batch().images))
    for row in range(5):
        for place in range(16):
            wanted = torch.zeros(12)
            for state in states[-2:]:
                x = state[row, 1 + place]
                wanted += (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() / 2
            torch.testing.assert_close(made.targets.tokens[row, place], wanted.detach(), rtol=0, atol=1e-4)
    assert not made.targets.tokens.requires_grad


def test_ratios_and_layers_that_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"mask_ratio=0.99 hides 16 of 16 patches"):
        MaskedImage(vit(), mask_ratio=0.99)
    with pytest.raises(UsageError, match="top_layers=4 of a tower with 3 blocks"):
        Data2Vec(vit(), top_layers=4)


# --- hidden words ---------------------------------------------------------------------------------------------------


def test_words_are_hidden_as_published() -> None:
    """Of each text's words 15 %, one at least; 80 % of these masked, 10 % replaced, 10 % kept; no end, no padding."""
    torch.manual_seed(0)
    learner = MaskedLanguage(TextTransformer(TOKENIZER, width=4, depth=1, heads=1, max_tokens=64))
    texts = [" and ".join(["a dog"] * 20), "boat", "a cat"] * 300
    ids, mask = tokens(texts)
    shown: list[torch.Tensor] = []
    learner.tower.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[0]))
    made = learner(Batch(groups=torch.zeros(900, 1, dtype=torch.int64), texts=ids, mask=mask))
    words = mask.bool() & ~torch.isin(ids, torch.tensor(learner.tower.special_tokens))
    counts = made.targets.mask.sum(1)
    assert counts.tolist() == [max(1, round(0.15 * int(n))) for n in words.sum(1)]

    changed = shown[0] != ids
    assert not changed[~words].any()
    total, masked = int(counts.sum()), int((shown[0] == learner.tower.mask_token).sum())
    assert masked / total == pytest.approx(0.8, abs=0.03)
    same_by_chance = 0.1 / learner.tower.vocabulary
    assert int(changed.sum()) / total == pytest.approx(0.9 - same_by_chance, abs=0.03)
    hidden = made.targets.tokens[..., 0][made.targets.mask]
    assert set(hidden.tolist()) <= set(ids[words].tolist())
    where = changed[::3].float().mean(0)[words[0]]  # of the long texts: no place is preferred
    assert where.min() > 0.06
    assert where.max() < 0.22


def test_the_logits_are_those_of_the_hidden_places() -> None:
    learner, _ = made_by("masked_language")
    learner.eval()
    given = batch()
    shown: list[torch.Tensor] = []
    hook = learner.tower.register_forward_pre_hook(lambda _, arguments: shown.append(arguments[0]))
    torch.manual_seed(4)
    made = learner(given)
    hook.remove()
    torch.manual_seed(4)
    places, _ = learner._choose(given.texts, given.mask.bool())
    states = learner.tower(shown[0], given.mask).tokens
    for row in range(5):
        for k, place in enumerate(places[row].tolist()):
            assert made.targets.tokens[row, k, 0] == given.texts[row, place]
            state = learner.say(states[row, place])
            wanted = [(state @ word).item() for word in learner.tower.embedding.weight]
            torch.testing.assert_close(made.text.tokens[row, k], torch.tensor(wanted), rtol=0, atol=1e-5)


def test_a_text_without_words_hides_nothing() -> None:
    learner, objective = made_by("masked_language")
    ids = torch.tensor([[2, 3, 0]])  # beginning, end, padding
    made = learner(Batch(groups=torch.zeros(1, 1, dtype=torch.int64), texts=ids, mask=(ids > 0).long()))
    assert not made.targets.mask.any()
    assert objective(made).item() == 0


# --- words and pictures ---------------------------------------------------------------------------------------------


def test_a_bag_is_the_mean_of_its_words_in_any_order() -> None:
    torch.manual_seed(0)
    bag = WordBag(TOKENIZER, 5)
    ids, mask = tokens(["a dog and a boat", "boat", "a boat and a dog", "?"])
    made = bag(ids, mask)
    for row in range(3):
        own = [bag.embedding.weight[i] for i in ids[row].tolist() if i > 4]  # the first five are no words
        torch.testing.assert_close(made.pooled[row], sum(own) / len(own))
    torch.testing.assert_close(made.pooled[0], made.pooled[2])
    assert not made.pooled[3].any()  # an unknown word says nothing


def test_skipgram_learns_words_that_find_pictures() -> None:
    """A picture is the sum of its two things; pairs of things that were never trained on are found."""
    torch.manual_seed(0)
    look = torch.eye(6, 20)
    pairs = [(one, two) for one in range(6) for two in range(one + 1, 6)]
    texts, mask = tokens([f"a {CONCEPTS[one]} and a {CONCEPTS[two]}" for one, two in pairs])
    images = torch.stack([look[one] + look[two] for one, two in pairs]) + 0.1 * torch.randn(15, 20)
    test = torch.arange(15) % 3 == 2
    learner = SkipGram(DualEncoder(nn.Identity(), WordBag(TOKENIZER, 12), LinearHead(20, 16), LinearHead(12, 16)))
    objective = objective_class("skipgram")()
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-2)

    def found() -> float:
        looks, said = learner.encoder.images(images).pooled, learner.encoder.texts(texts, mask).pooled
        return float(((said @ looks.T).argmax(1) == torch.arange(15))[test].float().mean())

    untrained = found()
    whole = Batch(groups=torch.arange(15)[:, None], images=images, texts=texts, mask=mask)
    for _ in range(60):
        optimiser.zero_grad()
        objective(learner(whole.map(lambda t: t[~test]))).backward()
        optimiser.step()
    assert found() >= 0.8 > 0.4 > untrained


def test_skipgram_wants_a_bag_of_words() -> None:
    with pytest.raises(UsageError, match="trains word vectors, not a Identity; choose the text tower words"):
        SkipGram(DualEncoder(nn.Identity(), nn.Identity(), LinearHead(2, 2), LinearHead(2, 2)))


def test_a_learner_of_ones_own_needs_no_after_step() -> None:
    class Same(Learner):
        def forward(self, given: Batch) -> Outputs:
            return Outputs(groups=given.groups)

    learner = Same()
    learner.after_step()
    assert torch.equal(learner(batch()).groups, batch().groups)
