"""Every private touch of flwr. Written against 1.41; `tests/flower/test_compat.py` watches it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import ServerApp
from flwr.supercore import telemetry
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedcl.core.errors import ConfigError, RunError

PARTITION = "partition-id"  # the key of a client's number in its node_config
PARTITIONS = "num-partitions"
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


def error_reply(reason: str, reply_to: Message) -> Message:
    """The reply of a client that failed."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=reply_to)


def wire_bytes(content: RecordDict) -> int:
    """Length of the serialised Flower objects that carry a message's content.

    The record and all that is nested in it, as Flower pushes them; equal objects of one message travel once.
    The envelope (run and node ids, times) is left out, because it is drawn at random and its length varies.
    """
    with no_object_id_recompute():
        return sum(len(part.deflate()) for part in get_all_nested_objects(content).values())


def run_on_ray(server: ServerApp, client: ClientApp, num_clients: int, config: dict[str, Any]) -> None:
    """Flower's simulation engine.

    Raises:
        ConfigError: Ray is not installed.
        RunError: the engine stopped.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('runtime=ray needs Ray: pip install "flwr[simulation]", or choose runtime=serial')
    # Deprecated, without a successor that takes objects; `quiet` holds the warning down.
    from flwr.simulation.run_simulation import run_simulation

    run: Callable[..., None] = run_simulation
    try:
        run(server_app=server, client_app=client, num_supernodes=num_clients, backend_config=config)
    except RuntimeError as error:  # Flower wraps whatever stopped the engine, twice
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise RunError(
            f"runtime=ray stopped: {type(cause).__name__}: {cause}; look at runtime.num_cpus, "
            "runtime.num_gpus and runtime.address, or choose runtime=serial"
        ) from error
