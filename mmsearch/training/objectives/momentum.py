"""Momentum contrast with a queue and soft targets: the contrastive loss of ALBEF, on the queue of MoCo.

    loss  = 1/2 mean_i CE(softmax_k(u_i . w'_k / t), Q_i) + the same with pictures and texts swapped
    Q_i   = a softmax_k(u'_i . w'_k / t) + (1 - a) P_i

u_i: picture vector; u'_i, w'_k: picture and text vectors of the momentum average of the encoder, those of this batch
and those of earlier ones, which a queue keeps, first in, first out; t: temperature, learnt; a: alpha; P_i: shared
evenly by all k that belong to picture i, in the queue too (He et al. 2020, arXiv 1911.05722; Li et al. 2021, arXiv
2107.07651).

Which one to choose: where memory allows small batches only, as the queue gives them thousands of negatives, and where
captions are noisy, as the teacher forgives a text that describes another picture as well. It needs the learner
`momentum`. With large batches `clip` is simpler and as good.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.training.objectives.infonce import one_way
from mmsearch.training.objectives.pairs import pairs, pooled
from mmsearch.training.objectives.temperature import Temperature
from mmsearch.training.outputs import Outputs, positives

RESPECTS = 4  # columns of groups that the queue has room for: picture, caption, label, and one more


class MomentumContrast(nn.Module):
    """width: of the vectors. size: of the queue, in pairs. alpha: share of the teacher in the target."""

    image_queue: Tensor  # (size, width)
    text_queue: Tensor
    group_queue: Tensor  # (size, RESPECTS)
    count: Tensor  # how many rows of the queue are filled
    place: Tensor  # where the next pair goes

    def __init__(self, width: int, size: int = 4096, alpha: float = 0.4, temperature: float = 0.07) -> None:
        super().__init__()
        if size < 1:
            raise UsageError(f"A queue of {size} pairs cannot be; choose 1 at least, or the objective clip.")
        if not 0 <= alpha <= 1:
            raise UsageError(f"An alpha of {alpha} cannot be: it is the teacher's share of the target; choose 0 to 1.")
        self.size, self.alpha = size, alpha
        self.temperature = Temperature(temperature)
        self.register_buffer("image_queue", torch.zeros(size, width))
        self.register_buffer("text_queue", torch.zeros(size, width))
        self.register_buffer("group_queue", torch.full((size, RESPECTS), -1))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("place", torch.tensor(0))

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, own = pairs(outputs, self)
        image_keys = pooled(outputs.teacher_image, "teacher_image", self).detach()
        text_keys = pooled(outputs.teacher_text, "teacher_text", self).detach()
        groups = self._groups(outputs.groups, images)
        filled = int(self.count)
        positive = torch.cat([own, positives(groups, self.group_queue[:filled]).to(own)], 1)  # (n, n + filled)
        towards_texts = torch.cat([text_keys, self.text_queue[:filled].to(text_keys)])  # (n + filled, d)
        towards_images = torch.cat([image_keys, self.image_queue[:filled].to(image_keys)])
        loss = self._one_way(images, image_keys, towards_texts, positive)
        loss = (loss + self._one_way(texts, text_keys, towards_images, positive)) / 2
        if self.training:
            self._remember(image_keys, text_keys, groups)
        return loss

    def _one_way(self, rows: Tensor, teacher: Tensor, keys: Tensor, positive: Tensor) -> Tensor:
        """rows, teacher (n, d); keys (m, d); positive (n, m)."""
        scale = self.temperature()
        soft = (scale.detach() * teacher @ keys.T).softmax(1)
        target = self.alpha * soft + (1 - self.alpha) * positive / positive.sum(1, keepdim=True)
        return one_way(scale * rows @ keys.T, target)

    def _groups(self, groups: Tensor | None, rows: Tensor) -> Tensor:
        """(n, g) or None -> (n, RESPECTS), filled up with -1."""
        known = groups if groups is not None else self.group_queue.new_full((len(rows), 1), -1)
        room = RESPECTS - known.shape[1]
        if room < 0:
            raise UsageError(
                f"The queue of MomentumContrast has room for {RESPECTS} respects in which rows belong together, not "
                f"{known.shape[1]}; leave some out, or use the objective clip."
            )
        return torch.cat([known, known.new_full((len(rows), room), -1)], 1)

    @torch.no_grad()
    def _remember(self, image_keys: Tensor, text_keys: Tensor, groups: Tensor) -> None:
        """The batch takes the place of the oldest; of a batch larger than the queue, its end."""
        n = min(len(groups), self.size)
        places = (self.place + torch.arange(n, device=self.place.device)) % self.size
        self.image_queue[places] = image_keys[-n:].to(self.image_queue)
        self.text_queue[places] = text_keys[-n:].to(self.text_queue)
        self.group_queue[places] = groups[-n:]
        self.place.copy_((self.place + n) % self.size)
        self.count.copy_((self.count + n).clamp(max=self.size))
