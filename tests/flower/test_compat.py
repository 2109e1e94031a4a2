"""The private touches of flwr still mean what they meant. When flwr changes, this breaks first."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY
from flwr.supercore import telemetry
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedcl.flower import compat
from fedcl.flower.weighing import sizes


def test_messages_can_be_made_sent_and_answered():
    message = compat.train_message(RecordDict(), 101, "3")
    name = compat.stamp(message)
    assert message.metadata.message_id == name
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (101, "3")
    reply = Message(RecordDict(), reply_to=message)
    assert (reply.metadata.reply_to_message_id, reply.metadata.src_node_id) == (name, 101)
    assert compat.error_reply("why", message).error.reason == "why"
    assert isinstance(compat.error_reply("why", message).error, Error)


def test_context_speaks_flowers_keys():
    assert (compat.PARTITION, compat.PARTITIONS) == (PARTITION_ID_KEY, NUM_PARTITIONS_KEY)
    assert compat.new_context(101, 1, 4).node_config == {"partition-id": 1, "num-partitions": 4}


def test_wire_bytes_are_the_serialised_objects():
    """Records, arrays and chunks that are equal, empty, long, or called by names that JSON escapes."""
    zeros, ramp = np.zeros(3_000_000, np.float32), np.arange(100, dtype=np.uint8)
    liar = Array(dtype='a"b', shape=(-1, 10**30), stype="ü", data=b"")
    arrays = {"x": Array(ramp), "ä\n": Array(ramp), "long": Array(zeros), "same": Array(zeros[:1]), "liar": liar}
    for content in (
        RecordDict(),
        RecordDict({"a": ArrayRecord()}),
        RecordDict({"a": ArrayRecord({"x": Array(ramp)}), "c": ConfigRecord({"n": 1, "b": b"x" * 200})}),
        RecordDict({"a": ArrayRecord(arrays), "b": ArrayRecord(arrays), "ö": ArrayRecord({"x": Array(ramp)})}),
        RecordDict({f"s.{n}": ConfigRecord({"k": n // 2}) for n in range(12)} | {"m": MetricRecord({"k": 1})}),
    ):
        objects = get_all_nested_objects(content).values()
        assert sizes(content)[2] == sum(len(each.deflate()) for each in objects)
        assert sizes(content) == sizes(content)


def test_quiet(monkeypatch):
    monkeypatch.delenv("FLWR_LOG_LEVEL", raising=False)
    compat.quiet()
    assert not logging.getLogger("flwr").isEnabledFor(logging.WARNING)
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"


def test_ray_is_not_needed_to_import():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import fedcl.flower.ray, fedcl.flower.simulate, fedcl.flower.batched, fedcl.flower.bridge\n"
        "from flwr.supercore import telemetry\n"
        "print(telemetry.FLWR_TELEMETRY_ENABLED)"
    )
    env = {name: value for name, value in os.environ.items() if name != "FLWR_TELEMETRY_ENABLED"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"


@pytest.mark.ray
def test_the_simulation_engine_is_where_it_was():
    from flwr.simulation.run_simulation import run_simulation

    assert callable(run_simulation)
