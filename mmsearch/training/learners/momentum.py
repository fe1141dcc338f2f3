"""Pictures and texts through an encoder, and through the momentum average of that encoder.

In: `Batch` with images and texts. Out: image, text; teacher_image, teacher_text by the average, without gradients;
groups. (He et al. 2020, arXiv 1911.05722; both modalities: Li et al. 2021, arXiv 2107.07651)
"""

from __future__ import annotations

import torch

from mmsearch.nn.dual_encoder import DualEncoder
from mmsearch.training.batch import Batch
from mmsearch.training.learners.average import follow, untrained_copy
from mmsearch.training.learners.contrastive import said, seen
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs


class Momentum(Learner):
    """momentum: how much of the average stays at each step."""

    def __init__(self, encoder: DualEncoder, momentum: float = 0.995) -> None:
        super().__init__()
        self.encoder, self.momentum = encoder, momentum
        self.teacher = untrained_copy(encoder)

    def forward(self, batch: Batch) -> Outputs:
        self.teacher.eval()  # `train` of the learner reaches it too; a teacher drops nothing out
        with torch.no_grad():
            teacher_image, teacher_text = seen(self.teacher, batch.images), said(self.teacher, batch)
        return Outputs(
            image=seen(self.encoder, batch.images),
            text=said(self.encoder, batch),
            teacher_image=teacher_image,
            teacher_text=teacher_text,
            groups=batch.groups,
        )

    def after_step(self) -> None:
        follow(self.teacher, self.encoder, self.momentum)
