"""Store of client states: memory of this process and the run's folder, one file a client and version.

A version is the round that wrote it: `clients/0003/000012.safetensors` is what client 3 kept in round 12. The newest
file is the truth, so every process that shares the folder sees it; memory only saves reading it again. A run that
has k rounds behind it begins with `forget_from(k)`, and its checkpoint allows `forget_before(k, ...)`.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from fedcl.core.coding import Wire
from fedcl.core.errors import RunError
from fedcl.core.tensor_files import as_data_error, read_tensors, write_tensors
from fedcl.distill.blobs import Blob, below, decode, encode, pack_blobs, unpack_blobs
from fedcl.federated.payload import ClientState

FORMAT = "fedcl client state 1"
EMPTY = ClientState()


class ClientStore:
    """States of all clients of a run, whichever process works for them."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder  # None: this process only
        self.remote = False  # whether other processes work for these clients, too: then a file may be another's
        self._memory: dict[int, tuple[int, ClientState]] = {}  # client -> (version, state)

    def read(self, client: int) -> ClientState:
        """What the client kept last; empty if it never did."""
        version, state = self._memory.get(client, (-1, EMPTY))
        newest = max(self._versions(client), default=None)
        if newest is not None and (self.remote or newest != version):
            state = unpack_state(*read_tensors(self._file(client, newest), FORMAT))
            self._memory[client] = (newest, state)
        return state

    def write(self, client: int, round: int, state: ClientState) -> None:
        """Keep a state as the version of a round; a state of the same round is replaced.

        Raises:
            RunError: several processes work for the clients, and there is no folder that they share.
        """
        tensors, about = pack_state(state)
        if self.folder is not None:
            path = self._file(client, round)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, FORMAT, tensors, about)
        elif self.remote:
            raise RunError(
                "clients of this strategy keep a state, and a run on several processes needs a folder for it"
            )
        self._memory[client] = (round, unpack_state(tensors, about))

    def forget_from(self, round: int) -> None:
        """Remove all but what each client kept last before `round`, where a session begins.

        What is newer comes from a session that was killed, what is older a kill left behind.
        """
        self._memory.clear()
        if self.folder is None or not self.folder.exists():
            return
        for folder in self.folder.iterdir():
            for path in folder.iterdir():
                if not (path.stem.isdigit() and int(path.stem) < round):  # also halves of files
                    path.unlink()
        self.forget_before(round, [int(folder.name) for folder in self.folder.iterdir()])
        if round == 0:
            shutil.rmtree(self.folder)

    def forget_before(self, round: int, clients: Iterable[int]) -> None:
        """Remove versions that are not needed once there is a checkpoint that begins at `round`."""
        for client in clients:
            older = sorted(version for version in self._versions(client) if version < round)
            for version in older[:-1]:
                self._file(client, version).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Bytes and decoded images of all clients' states together."""
        clients = {*self._memory}
        if self.folder is not None and self.folder.exists():
            clients |= {int(path.name) for path in self.folder.iterdir()}
        states = [self.read(client) for client in sorted(clients)]
        return {
            "client_bytes": sum(num_bytes(state) for state in states),
            "client_images": sum(summary.num_images for state in states for summary in state.summaries),
        }

    def _file(self, client: int, version: int) -> Path:
        return (self.folder or Path()) / f"{client:04d}" / f"{version:06d}.safetensors"

    def _versions(self, client: int) -> list[int]:
        """Versions of a client that lie in the folder."""
        with suppress(FileNotFoundError):
            names = () if self.folder is None else os.listdir(self.folder / f"{client:04d}")
            return [int(name.split(".")[0]) for name in names if name[0] != "."]
        return []


def num_bytes(state: ClientState) -> int:
    """Bytes of a state as it is stored."""
    return sum(tensor.nbytes for tensor in state.tensors.values()) + sum(blob.num_bytes for blob in _blobs(state))


def pack_state(state: ClientState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what JSON can say of them."""
    stored, metas = pack_blobs(_blobs(state))
    tensors = {f"tensors/{name}": tensor.detach().cpu() for name, tensor in state.tensors.items()}
    tensors |= {f"summaries/{name}": tensor for name, tensor in stored.items()}
    # the order, because safetensors sorts
    return tensors, {"order": list(state.tensors), "summaries": list(metas), "storage": state.storage}


def unpack_state(tensors: dict[str, Tensor], about: dict[str, Any]) -> ClientState:
    """Undo `pack_state`: what was kept as it was stored, bit for bit.

    Raises:
        DataError: a part is missing or contradicts another.
    """
    with as_data_error("the state of a client is damaged"):
        named, blobs = below(tensors, "tensors"), unpack_blobs(below(tensors, "summaries"), about["summaries"])
        return ClientState(
            tensors={name: named[name] for name in about["order"]},
            summaries=tuple(decode(blob) for blob in blobs),
            storage=about["storage"],
        )


def _blobs(state: ClientState) -> list[Blob]:
    """The state's summaries as they are stored; those without an image are not kept."""
    return [encode(summary, Wire(dtype=state.storage)) for summary in state.summaries if len(summary.targets)]
