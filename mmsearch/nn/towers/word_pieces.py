"""Tokenizers for towers that start from nothing, as the content of a `tokenizer.json`: BERT's lower-cased word pieces.

In: MiniLM's package, or texts. Out: JSON that `tokenizers.Tokenizer.from_str` reads; no padding, no truncation.
(Wu et al. 2016, arXiv 1609.08144)
"""

from __future__ import annotations

from collections.abc import Iterable

from mmsearch.nn.towers.packages import minilm_folder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def minilm_word_pieces() -> str:
    """MiniLM's tokenizer: the 30,522 English word pieces of BERT."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    made: str = tokenizer.to_str()
    return made


def learned_word_pieces(texts: Iterable[str], vocabulary: int = 8000) -> str:
    """Pieces that these texts are made of, at most `vocabulary` of them (fewer where the texts have fewer)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    made: str = tokenizer.to_str()
    return made
