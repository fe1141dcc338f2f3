"""open_clip's byte-pair tokenizer as the content of a `tokenizer.json`, so that no torch is needed to use it.

In: the merges that ship with open_clip. Out: JSON that `tokenizers.Tokenizer.from_str` reads; no padding, no
truncation. The same ids as open_clip's `SimpleTokenizer` gives, where its text mender (ftfy) changes nothing but
quotation marks: HTML entities and text in a broken encoding stay as they are.
(Radford et al. 2021, arXiv 2103.00020)
"""

from __future__ import annotations

from mmsearch.encoders.openclip_library import open_clip

_QUOTES = (("[\\u02bc\\u2018-\\u201b]", "'"), ("[\\u201c-\\u201f]", '"'))  # as ftfy straightens them
_UNPRINTABLE = "[\\x00-\\x08\\x0b\\x0e-\\x1f\\x7f]"
_PARTS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_tokenizer() -> str:
    """`<start_of_text>`, the pieces, `<end_of_text>`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    known = open_clip().tokenizer.SimpleTokenizer()
    merges = sorted(known.bpe_ranks, key=known.bpe_ranks.__getitem__)
    tokenizer = Tokenizer(models.BPE(known.encoder, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(Regex(found), mended) for found, mended in _QUOTES),
            normalizers.Replace(Regex(_UNPRINTABLE), ""),
            normalizers.NFC(),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PARTS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ends = [(name, known.encoder[name]) for name in ("<start_of_text>", "<end_of_text>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start_of_text> $A <end_of_text>", special_tokens=ends
    )
    made: str = tokenizer.to_str()
    return made
