"""Class-incremental: each step brings new classes, all of their examples, and never the old ones.

Sources: Rebuffi et al., "iCaRL", CVPR 2017, https://arxiv.org/abs/1611.07725; Hsu et al., "Re-evaluating
Continual Learning Scenarios", NeurIPS CL workshop 2018, https://arxiv.org/abs/1810.12488 (Split-MNIST 5x2).
"""

from dataclasses import dataclass

import numpy as np

from fedcl.scenario.base import Labels, Scenario
from scenarios.class_blocks import ClassBlocks


@dataclass(frozen=True, kw_only=True)
class ClassIncremental(ClassBlocks):
    """One step a block of classes. Exhaustive; steps are disjoint."""

    def build(self, labels: Labels, seed: int) -> Scenario:
        blocks = self.blocks(labels.num_classes, seed)
        steps = [np.flatnonzero(np.isin(labels.train_N, block)) for block in blocks]
        name = f"class_incremental({len(blocks)} steps, {self.order_name})"
        return self.scenario(name, labels, seed, blocks, steps)
