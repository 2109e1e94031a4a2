"""One loop trains networks: no other place of the house pulls a loss back or takes an optimiser's step."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {
    "fedcl/training/loop.py": ["optimizer.zero_grad", "value.backward", "optimizer.step"],
    "fedcl/distill/state.py": ["self.optimizer.step"],  # of the synthetic images: no network is trained
}
# Objectives differentiate: by images, or (inner.py, recompute.py) through a training inside the objective, whose steps
# are functions of weights without an optimiser. That is no training loop; elsewhere `autograd.grad` would be one.
OBJECTIVES = "fedcl/distill/"


def steps_of(source: str, objectives: bool = False) -> list[str]:
    """Calls that pull a loss back or step an optimiser, as they are written, in their order."""
    found = []
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: call.lineno):
        written = ast.unparse(call.func)
        owner, _, name = written.rpartition(".")
        stepped = name == "step" and not call.args and owner not in ("", "super()")
        pulled = name in ("backward", "zero_grad") and owner != ""
        if stepped or pulled or (written.endswith("autograd.grad") and not objectives):
            found.append(written)
    return found


def test_no_second_loop_trains_a_network():
    found = {}
    for path in sorted(path for package in ("fedcl", "strategies") for path in (ROOT / package).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        found[place] = steps_of(path.read_text(), place.startswith(OBJECTIVES))
    found = {place: calls for place, calls in found.items() if calls}
    assert found == TRAINING, "a network is trained by fedcl.training.loop.train alone"


def test_a_planted_loop_is_seen():
    planted = "for x in batches:\n    loss(x).backward()\n    self.sgd[0].step()\n    self.sgd[0].zero_grad()\n"
    assert steps_of(planted) == ["loss(x).backward", "self.sgd[0].step", "self.sgd[0].zero_grad"]
    assert steps_of("w = w - torch.autograd.grad(loss, w)[0]") == ["torch.autograd.grad"]
    assert steps_of("g = torch.autograd.grad(loss, x)", objectives=True) == []
    assert steps_of("def backward(ctx, g): ...\nrun.step(3)\nsuper().step()\nstep()\nctx.save_for_backward(x)") == []
