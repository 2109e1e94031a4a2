"""Compress, then recall: every step is distilled and dropped; a new network is trained on summaries alone.

Deng & Russakovsky, "Remember the Past", NeurIPS 2022, https://arxiv.org/abs/2206.02916 (compress-then-recall);
Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, section 4.4, and Prabhu et al.,
"GDumb", ECCV 2020 (memory-only training). With distiller=random or herding: the same learner on real images.
"""

from dataclasses import dataclass, replace

from fedcl.continual.contract import LearnerContext, State, Step
from fedcl.continual.learner import SEEN, Learner, fresh_model, replayed
from fedcl.continual.remember import remember_distilled
from fedcl.training.augmentation import Siamese
from fedcl.training.recipe import Training

# Zhao & Bilen, WACV 2023, with a fixed number of updates
RECALL_TRAINING = Training(updates=500, augmentation=Siamese())


@dataclass(frozen=True, kw_only=True)
class CompressRecall(Learner):
    training: Training = RECALL_TRAINING  # from scratch, on the buffer alone
    every_step: bool = True  # False: recall only after the last step, where the rows before are not wanted

    needs_memory = True
    unused = ("distiller.ipc",)  # the budget says how many images are made

    def learn(self, state: State, step: Step, ctx: LearnerContext) -> State:
        state = remember_distilled(state, step, ctx)
        if not (self.every_step or step.last):
            return replace(state, tensors={SEEN: step.seen_C})
        return self.fit(state, fresh_model(ctx), replayed(state.buffer, ctx), step, ctx)
