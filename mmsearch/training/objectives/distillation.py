"""Distillation from a teacher encoder: the student's similarities follow those of a better one.

    loss = 1/2 mean_i KL( softmax_j(S_ij / T) || softmax_j(s_ij / t) ) + the same by columns
           + clip_weight CLIP(s / t) + feature_weight ( 2 - mean_i u_i . U_i - mean_i w_i . W_i )

s_ij, S_ij: cosines of picture i and text j by student and teacher; t: temperature, learnt; T: the teacher's own; u, w,
U, W: vectors of student and teacher (Hinton et al. 2015, arXiv 1503.02531; similarities of both modalities: Wu et al.
2023, arXiv 2309.12314, Yang et al. 2024, arXiv 2307.12732).

Which one to choose: whenever a better encoder can be run over the material once: it says of each text how well it fits
each picture, where `clip` only says which is whose. The dimensions may differ; feature_weight asks for equal ones.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.errors import UsageError
from mmsearch.training.objectives.infonce import one_way
from mmsearch.training.objectives.pairs import pairs, pooled
from mmsearch.training.objectives.temperature import Temperature
from mmsearch.training.outputs import Outputs


class Distillation(nn.Module):
    """temperature: where the student's starts. teacher_temperature: 0.01 is that of CLIP models. clip_weight: of the
    contrastive loss on the pairs themselves. feature_weight: of the cosines between student and teacher."""

    def __init__(
        self,
        temperature: float = 0.07,
        teacher_temperature: float = 0.01,
        clip_weight: float = 1.0,
        feature_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if not teacher_temperature > 0:
            raise UsageError(f"A teacher_temperature of {teacher_temperature} cannot be; choose one above 0.")
        self.temperature, self.teacher_temperature = Temperature(temperature), teacher_temperature
        self.clip_weight, self.feature_weight = clip_weight, feature_weight

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        teacher_images = pooled(outputs.teacher_image, "teacher_image", self).detach()
        teacher_texts = pooled(outputs.teacher_text, "teacher_text", self).detach()
        logits = self.temperature() * images @ texts.T  # (n, n)
        known = teacher_images @ teacher_texts.T / self.teacher_temperature
        loss = (_divergence(known, logits) + _divergence(known.T, logits.T)) / 2
        loss = loss + self.clip_weight * (one_way(logits, positive) + one_way(logits.T, positive.T)) / 2
        if self.feature_weight:
            for own, wanted in ((images, teacher_images), (texts, teacher_texts)):
                loss = loss + self.feature_weight * (1 - _cosines(own, wanted)).mean()
        return loss


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Logits (n, m) of both -> KL of their softmax, averaged over the rows."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def _cosines(own: Tensor, wanted: Tensor) -> Tensor:
    """Unit rows (n, d) of both -> (n,)."""
    if own.shape[1] != wanted.shape[1]:
        raise UsageError(
            f"feature_weight compares vectors of {own.shape[1]} numbers with the teacher's of {wanted.shape[1]}; "
            f"set width={wanted.shape[1]} or feature_weight=0."
        )
    return (own * wanted).sum(1)
