"""iCaRL: herded exemplars, distillation by sigmoids, nearest-mean-of-exemplars classification.

Rebuffi et al., CVPR 2017, https://arxiv.org/abs/1611.07725: algorithm 1 (classification), 3 (representation),
4 and 5 (exemplars). Old classes learn the old network's sigmoid outputs, new ones their labels. The paper's classes
never come back; where they do, this step's images have labels for all classes of the step.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import SEEN, Learner, Masked, mix_with_memory, network, replayed, teacher
from fedcl.continual.remember import remember_herding, unit_features
from fedcl.models.base import Network
from fedcl.training.losses import Batch


class NearestMean(nn.Module):
    """Scores are minus squared distances of unit features to the classes' mean exemplars."""

    means_KD: Tensor

    def __init__(self, network: Network, means_KD: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("means_KD", means_KD)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return -torch.cdist(F.normalize(self.network.embed(images_NCHW)), self.means_KD).square()


@dataclass(frozen=True, kw_only=True)
class ICaRL(Learner):
    needs_memory = True
    balance = "classes"
    unused = ("distiller",)
    cross_entropy = "iCaRL's loss is a cross-entropy of sigmoids"

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        model, before = network(state, ctx), teacher(state, ctx)
        images, labels = mix_with_memory(step, state.buffer, ctx)
        old, seen = step.old_C.to(ctx.device), step.seen_C.to(ctx.device)
        held = step.data.counts_C > 0

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            known_NC = before(batch.inputs).sigmoid() if bool(step.old_C.any()) else torch.zeros(())

            def wanted(rows_N: Tensor) -> Tensor:
                own, new_N1 = F.one_hot(labels[rows_N], ctx.num_classes).float(), (rows_N < len(step.data))[:, None]
                return torch.where(old & ~(new_N1 & held), known_NC, own)

            scores = model(batch.inputs)
            losses = F.binary_cross_entropy_with_logits(scores, batch.blend(wanted), reduction="none")
            return losses[:, seen].sum(1).mean()

        state = self.fit(state, model, (images, labels), step, ctx, loss=loss)
        return replace(state, buffer=remember_herding(state.buffer, step.data, model, ctx))

    def model(self, state: State, ctx: LearnerContext) -> nn.Module:
        """The nearest-mean classifier; the network itself as long as there are no exemplars."""
        if not len(state.buffer):
            return super().model(state, ctx)
        model = network(state, ctx).eval()
        images, labels = replayed(state.buffer, ctx)
        features = unit_features(model, images, ctx)
        sums = features.new_zeros(ctx.num_classes, features.shape[1]).index_add_(0, labels, features)
        held = labels.cpu().bincount(minlength=ctx.num_classes) > 0
        return Masked(NearestMean(model, F.normalize(sums)), held & state.tensors[SEEN])
