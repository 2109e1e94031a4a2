"""Teachers: a trained network as arrays of a summary, and training on the labels that it gives to views.

"teacher" is float32 [P]: every floating entry of the network's state, running statistics of norms included, one after
the other in the state's order. "teacher_temperature" is float32 [1]. Both are counted in the summary's bytes.
"""

import torch
from torch import Tensor, nn

from fedcl.core.errors import DataError
from fedcl.training.losses import Batch, Criterion, Loss

TEACHER, TEMPERATURE = "teacher", "teacher_temperature"
CHUNK = 256  # images a pass


def _entries(network: nn.Module) -> list[Tensor]:
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def pack_teacher(network: nn.Module) -> Tensor:
    """float32 [P] on the CPU: the state of the network."""
    return torch.cat([value.detach().float().cpu().flatten() for value in _entries(network)])


@torch.no_grad()
def unpack_teacher(weights_P: Tensor, network: nn.Module) -> nn.Module:
    """`network` with that state, in eval mode and without gradients; DataError for weights of another network."""
    into = _entries(network)
    sizes = [value.numel() for value in into]
    if weights_P.ndim != 1 or len(weights_P) != sum(sizes):
        raise DataError(
            f"the summary's teacher has {weights_P.numel()} numbers, this model {sum(sizes)}: it is of another "
            "model; type the same model=... and model.width=... as when the summary was made"
        )
    for value, part in zip(into, weights_P.split(sizes), strict=True):
        value.copy_(part.view_as(value))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def logits(network: nn.Module, images_NCHW: Tensor) -> Tensor:
    """float32 [N, C] of the network in eval mode; its mode is what it was afterwards."""
    training = network.training
    network.eval()
    found = torch.cat([network(part).float() for part in images_NCHW.split(CHUNK)])
    network.train(training)
    return found


def view_loss(teacher: nn.Module, temperature: float, criterion: Criterion) -> Loss:
    """Loss of a network on a batch of views as augmentation (and CutMix) left them: the teacher says their labels.

    temperature^2 * criterion(scores / temperature, softmax(teacher / temperature)), where the square keeps the
    gradients' size (Hinton et al., arXiv 1503.02531, section 2).
    """

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        wanted = (logits(teacher, batch.inputs) / temperature).softmax(1)
        return temperature**2 * criterion(network(batch.inputs) / temperature, wanted)

    return loss
