"""A tokenizer with few words, for tests: BERT's lower-cased word pieces, learned from some texts."""

from __future__ import annotations

from collections.abc import Iterable

from mmsearch.nn.towers.word_pieces import SPECIAL


def learned_word_pieces(texts: Iterable[str], vocabulary: int) -> str:
    """Pieces that these texts are made of, at most `vocabulary` of them (fewer where the texts have fewer)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
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
