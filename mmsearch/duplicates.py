"""Which pictures are the same, in tiers that are kept apart."""

from __future__ import annotations

NEAR_BITS = 10


def same_picture(a: bytes | None, b: bytes | None) -> bool:
    """Whether two perceptual hashes (16 bytes each) are of one picture, re-encoded, resized or touched a little."""
    if a is None or b is None or len(a) != len(b):
        return False
    one, other = int.from_bytes(a), int.from_bytes(b)
    told = min(one.bit_count(), other.bit_count())  # a flat picture has few bits, and agrees with any other
    return (one ^ other).bit_count() <= min(NEAR_BITS, told // 4)
