"""The tokenizer of towers that start from nothing, as the content of a `tokenizer.json`: the word pieces of BERT.

In: MiniLM's package. Out: JSON that `tokenizers.Tokenizer.from_str` reads; no padding, no truncation.
(Wu et al. 2016, arXiv 1609.08144)
"""

from __future__ import annotations

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
