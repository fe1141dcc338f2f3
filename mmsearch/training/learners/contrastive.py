"""Pictures and texts through their towers into the space they share; with a teacher, where there is one.

In: `Batch`. Out: image, text, teacher_image, teacher_text, as far as the batch has them, of unit length; groups.
"""

from __future__ import annotations

from torch import Tensor

from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.nn.features import Features, unit
from mmsearch.training.batch import Batch
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs


class Contrastive(Learner):
    """The states of patches and tokens are left out: no contrastive objective reads them, and those of a batch of
    thousands would not fit into memory."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(
            image=seen(self.encoder, batch.images),
            text=said(self.encoder, batch),
            teacher_image=_known(batch.teacher_images),
            teacher_text=_known(batch.teacher_texts),
            groups=batch.groups,
        )


def seen(encoder: DualEncoder, images: Tensor | None) -> Features | None:
    """Vectors (n, d) of pictures, where there are pictures."""
    return None if images is None else Features(pooled=encoder.images(images).pooled)


def said(encoder: DualEncoder, batch: Batch) -> Features | None:
    """Vectors (n, d) of texts, where there are texts."""
    return None if batch.texts is None else Features(pooled=encoder.texts(batch.texts, batch.mask).pooled)


def _known(vectors: Tensor | None) -> Features | None:
    """A teacher's vectors, which may have been kept in half precision."""
    return None if vectors is None else Features(pooled=unit(vectors.float()))
