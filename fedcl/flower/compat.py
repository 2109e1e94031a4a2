"""Every private touch of flwr. Written against 1.41; `tests/flower/test_compat.py` watches it."""

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import torch
from flwr.app import Array, Context, Error, Message, MessageType, RecordDict
from flwr.client.mod.utils import make_ffn as with_mods  # noqa: F401
from flwr.clientapp import ClientApp
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, SUPERLINK_NODE_ID, ErrorCode, SType
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore import telemetry
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from fedcl.core.errors import ConfigError, RunError

R = TypeVar("R")
PARTITION = "partition-id"  # the key of a client's number in its node_config
PARTITIONS = "num-partitions"
CHUNK_BYTES = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE  # of an array that travel as one object
DEAD_WORKER = "the worker process died at this client's work: killed, out of memory, or ended by its own code"
NUMPY = SType.NUMPY  # the only kind of array that is sent
MEMORY = ("m_t", "v_t", "momentum_vector")  # attributes that Flower's algorithms keep between rounds
_RUN_ID = 1  # of every run in process


def quiet() -> None:
    """Flower's console is silent unless FLWR_LOG_LEVEL is set (the record has the reasons); no telemetry.

    The environment variable that fedcl sets is read when flwr is imported; this covers a flwr that was
    imported first.
    """
    if "FLWR_LOG_LEVEL" not in os.environ:
        logging.getLogger("flwr").setLevel(logging.CRITICAL)
    telemetry.FLWR_TELEMETRY_ENABLED = os.environ.get("FLWR_TELEMETRY_ENABLED", "0")


def identify() -> None:
    """Say who this process is, without which no `Message` can be made; a runtime's own answer stays."""
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = _RUN_ID, 1, SUPERLINK_NODE_ID


def new_run() -> Run:
    """The run of an in-process grid."""
    return Run.create_empty(_RUN_ID)


def new_context(node_id: int, partition: int, num_partitions: int) -> Context:
    """What Flower gives a ClientApp beside the message; nothing is kept in it between messages."""
    return Context(
        run_id=_RUN_ID,
        node_id=node_id,
        node_config={PARTITION: partition, PARTITIONS: num_partitions},
        state=RecordDict(),
        run_config={},
    )


def stamp(message: Message) -> str:
    """Give a message its id, as Flower's own links do, and return it."""
    message.metadata.__dict__["_message_id"] = str(uuid4())
    return message.metadata.message_id


def train_message(content: RecordDict, node_id: int, group: str = "") -> Message:
    identify()
    return Message(content, node_id, MessageType.TRAIN, group_id=group)


def query_message(node_id: int) -> Message:
    identify()
    return Message(RecordDict(), node_id, MessageType.QUERY)


def new_array(dtype: str, shape: tuple[int, ...], data: bytes) -> Array:
    """`Array(dtype, shape, "numpy.ndarray", data)`, whose constructor costs more than making the data."""
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype=SType.NUMPY, data=data)
    return array


def filled(record: R, items: Mapping[str, Any]) -> R:
    """The record with these items, which are of its type: Flower's own way looks at and copies each of them."""
    record.__dict__["_data"].update(items)
    return record


def items_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionary in a record, to be read; Flower's own way to each item is several calls."""
    return record.__dict__["_data"]


def copied(content: RecordDict) -> RecordDict:
    """A content whose records and arrays are its own; the bytes in them are shared, and never change."""
    own: dict[str, Any] = {}
    for key, record in content.items():
        items = {name: list(v) if isinstance(v, list) else v for name, v in record.items()}
        own[key] = filled(record.copy(), {name: _twin(v) if isinstance(v, Array) else v for name, v in items.items()})
    return filled(RecordDict(), own)


def _twin(thing: R) -> R:
    """`copy.copy` of one of Flower's objects, whose attributes are all in its dictionary."""
    own = object.__new__(type(thing))
    own.__dict__.update(thing.__dict__)
    return own


def error_reply(reason: str, reply_to: Message) -> Message:
    """The reply of a client that failed."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=reply_to)


def handed(message: Message) -> Message:
    """The message for its reader, who may change its metadata without the sender's changing."""
    own = _twin(message)
    own.__dict__["_metadata"] = _twin(message.metadata)
    return own


def memory_of(algorithm: FedAvg, before: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """Memory of one of Flower's algorithms after a round, as tensors called "<attribute>/<parameter>".

    Args:
        before: its `vars` before the round.
        names: of the parameters, in their order.

    Raises:
        ConfigError: it remembers something else, which would be lost.
    """
    known = (*MEMORY, "current_arrays")  # the latter is set again from the state every round
    unknown = [name for name, value in vars(algorithm).items() if name not in known and value is not before.get(name)]
    if unknown:
        raise ConfigError(
            f"{type(algorithm).__name__} remembers {', '.join(unknown)}, which fedcl cannot save; "
            "name it in MEMORY of fedcl/flower/compat.py"
        )
    tensors: dict[str, Tensor] = {}
    for attribute in MEMORY:
        kept = getattr(algorithm, attribute, None)
        if kept is not None:
            arrays = kept if isinstance(kept, Mapping) else dict(zip(names, kept, strict=True))
            tensors |= {f"{attribute}/{name}": torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return tensors


def set_memory(algorithm: FedAvg, tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Undo `memory_of`. FedAvgM keeps a list in the order of the parameters, the others keep dictionaries."""
    for attribute in MEMORY:
        if any(key.startswith(f"{attribute}/") for key in tensors):
            arrays = {name: tensors[f"{attribute}/{name}"].numpy().copy() for name in names}
            setattr(algorithm, attribute, list(arrays.values()) if attribute == "momentum_vector" else arrays)


@contextmanager
def _lasting_workers() -> Iterator[None]:
    """Flower's Ray backend with a new actor in place of one that died, which it would ask again and again."""
    import ray
    from flwr.server.superlink.fleet.vce.backend import raybackend
    from ray.exceptions import RayError, RayTaskError

    theirs = raybackend.RayBackend

    class Backend(theirs):
        def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
            if self.pool is None:
                raise RuntimeError("the actors are not built yet")
            actor: Any = self.pool.pool.pop()  # there are as many threads that call this as actors
            job = (self.app_fn, message, str(context.node_config[PARTITION]), context)
            try:
                _, reply, context = ray.get(actor.run.remote(*job))
            except RayTaskError as error:  # the actor lives, and could not say what it had to say
                first_line = str(error.cause).strip().partition("\n")[0]
                reply = error_reply(f"{type(error.cause).__name__}: {first_line}", message)
            except RayError:
                ray.kill(actor)
                actor = self.pool.create_actor_fn()
                reply = error_reply(DEAD_WORKER, message)
            finally:
                self.pool.pool.append(actor)
            return reply, context

    raybackend.RayBackend = Backend  # type: ignore[misc]
    try:
        yield
    finally:
        raybackend.RayBackend = theirs  # type: ignore[misc]


def run_on_ray(server: ServerApp, client: ClientApp, num_clients: int, config: dict[str, Any]) -> None:
    """Flower's simulation engine.

    Raises:
        ConfigError: Ray is not installed, or does not load.
        RunError: the engine stopped.
    """
    try:
        importlib.import_module("ray")
    except ImportError as error:
        install = 'pip install "flwr[simulation]"'
        raise ConfigError(f"runtime=ray needs Ray ({error}): {install}, or choose runtime=serial") from None
    # Deprecated, without a successor that takes objects; `quiet` holds the warning down.
    from flwr.simulation.run_simulation import run_simulation

    run: Callable[..., None] = run_simulation
    try:
        with _lasting_workers():
            run(server_app=server, client_app=client, num_supernodes=num_clients, backend_config=config)
    except RuntimeError as error:  # Flower wraps whatever stopped the engine, twice
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise RunError(
            f"runtime=ray stopped: {type(cause).__name__}: {cause}; look at runtime.num_cpus, "
            "runtime.num_gpus and runtime.address, or choose runtime=serial"
        ) from error
