"""The main job from objects, on the embedded data: small, whole, and always the same."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from flwr.serverapp.strategy import Krum

from fedcl.core.coding import Wire
from fedcl.core.errors import ConfigError, RunError
from fedcl.core.record import read_record
from fedcl.data.digits import Digits
from fedcl.distill.distiller import Distiller
from fedcl.distill.files import load_summary
from fedcl.federated.contract import client_work
from fedcl.federated.transforms.base import NoTransform
from fedcl.federated.transforms.qsgd import QSGD
from fedcl.flower.batched import Batched
from fedcl.flower.bridge import FlowerStrategy
from fedcl.flower.serial import Serial
from fedcl.models.convnet import ConvNet
from fedcl.runs.federated import FederatedJob, make_simulation, run_federated
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from scenarios.dirichlet import Dirichlet
from strategies.federated.fedaf import FedAF
from strategies.federated.fedcache import FedCache
from strategies.federated.feddm import FedDM
from strategies.federated.one_shot import OneShot
from strategies.federated.scaffold import Scaffold

pytestmark = pytest.mark.usefixtures("blank_pictures")

DISTILLER = Distiller(ipc=2, steps=3, real_batch=8)
TRAINING = Training(updates=150, batch_size=64, lr=0.05, augmentation=NoAugmentation())
BRIEF = replace(TRAINING, updates=5)  # where accuracy does not matter
ROBUST = FlowerStrategy(algorithm=Krum(num_malicious_nodes=2), training=BRIEF)


def job(out, **changes):
    base = FederatedJob(
        seed=0,
        device="cpu",
        source=Digits(horizontal_flip=False),
        model=ConvNet(width=8),
        recipe=Dirichlet(num_clients=5, alpha=0.5),
        distiller=DISTILLER,
        strategy=OneShot(training=BRIEF),
        runtime=Serial(),
        wire=Wire(dtype="uint8"),
        out=out,
        command=["fedcl", "federated"],
    )
    return replace(base, **changes)


def test_one_shot_end_to_end(tmp_path, rendered):
    record = run_federated(job(tmp_path / "a", strategy=OneShot(training=TRAINING)))
    assert record == read_record(tmp_path / "a")
    assert record["finished"]
    assert record["rounds"][0]["clients"] == [0, 1, 2, 3, 4]
    assert record["accuracy"]["last"] == record["rounds"][-1]["accuracy"] > 0.6  # 10 classes: chance is 0.1
    counts = torch.tensor(record["scenario"]["class_counts"])
    entries = int(counts.clamp(max=2).sum())  # ipc 2, fewer where a client has fewer
    sent = record["communication"]["by_kind"]
    assert sent["images"] == entries * 64  # one byte a pixel
    assert sent["labels"] == entries
    assert sent["constants"] == 5 * 8  # two float32 for the one channel of each client
    # for each client: round, step, the name of the work, three bytes each of classes, inputs and network
    assert record["communication"]["down"]["payload_bytes"] == 5 * (2 * 8 + len("distill") + 9)
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {
        "record.json",
        "ledger.csv",
        "partition.png",
        "summaries.png",
        "summaries",
    }
    summary = load_summary(tmp_path / "a" / "summaries" / "client-0003.safetensors")
    assert summary.origin.client == 3
    assert (summary.num_source_C, summary.num_classes) == (None, 10)  # how many examples a client holds is not sent
    assert "statistics" not in sent


def test_the_same_command_gives_the_same_record(tmp_path, timeless):
    first, second = (timeless(run_federated(job(tmp_path / name))) for name in "ab")
    assert first == second
    other = timeless(run_federated(job(tmp_path / "c", seed=1)))
    assert other["scenario"]["sha256"] != first["scenario"]["sha256"]
    assert other["rounds"][0]["summaries"] != first["rounds"][0]["summaries"]


@pytest.mark.parametrize(
    "strategy",
    [
        OneShot(training=BRIEF),
        FedDM(objective=None, steps=None, training=BRIEF),
        Scaffold(training=replace(BRIEF, momentum=0.0)),
        FedAF(training=BRIEF, steps=2),
        FedCache(training=BRIEF, server_training=BRIEF),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_serial_and_batched_agree_to_the_bit(tmp_path, strategy, timeless):
    compress = QSGD() if isinstance(strategy, Scaffold) else NoTransform()
    brief = {"clients_per_round": 3, "num_rounds": 2, "compress": compress, "wire": Wire(dtype="float16")}
    serial, batched = (
        run_federated(job(tmp_path / name, strategy=strategy, runtime=runtime, **brief))
        for name, runtime in (("serial", Serial()), ("batched", Batched()))
    )
    for record in (serial, batched):
        del record["config"]["runtime"], record["config"]["choices"]
    assert timeless(serial) == timeless(batched)


def test_the_server_trains_on_what_was_decoded(tmp_path):
    fine, coarse = (run_federated(job(tmp_path / d, wire=Wire(dtype=d))) for d in ("float32", "uint8"))
    assert fine["rounds"][0]["summaries"]["sha256"] != coarse["rounds"][0]["summaries"]["sha256"]
    assert fine["communication"]["by_kind"]["images"] == 4 * coarse["communication"]["by_kind"]["images"]


def test_chosen_images_are_the_same_bytes_on_every_wire(tmp_path):
    """The control on real images: one byte a pixel, no constants, and the accuracy does not depend on the wire."""
    chosen = replace(DISTILLER, steps=0)
    records = [
        run_federated(job(tmp_path / dtype, distiller=chosen, wire=Wire(dtype=dtype)))
        for dtype in ("float32", "float16", "uint8")
    ]
    entries = int(torch.tensor(records[0]["scenario"]["class_counts"]).clamp(max=2).sum())
    for record in records:
        kinds = record["communication"]["by_kind"]
        assert (kinds["images"], kinds["labels"], "constants" in kinds) == (entries * 64, entries, False)
        assert record["accuracy"]["last"] == records[0]["accuracy"]["last"]
        assert record["rounds"][0]["summaries"] == records[0]["rounds"][0]["summaries"]


def test_feddm_learns_over_rounds_and_sends_the_model_down(tmp_path):
    record = run_federated(
        job(tmp_path / "a", strategy=FedDM(objective=None, steps=None, training=TRAINING, num_rounds=3))
    )
    assert len(record["rounds"]) == 3
    assert record["communication"]["by_kind"]["weights"] > 0
    assert record["rounds"][-1]["accuracy"] > record["rounds"][0]["accuracy"] - 0.05
    hashes = [entry["summaries"]["sha256"] for entry in record["rounds"]]
    assert len(set(hashes)) == 3  # fresh images each round


def test_a_run_that_fails_says_why_in_its_record(tmp_path):
    broken = replace(DISTILLER, optimizer=partial(torch.optim.SGD, lr=1e30))
    with pytest.raises(RunError, match=r"no round counted, .* in round 1 client 0: .*optimizer\.lr"):
        run_federated(job(tmp_path / "a", distiller=broken))
    record = read_record(tmp_path / "a")
    assert not record["finished"]
    assert "optimizer.lr" in record["failure"]
    assert len(record["rounds"][0]["failed"]) == 5


@dataclass(frozen=True, kw_only=True)
class Absent(FlowerStrategy):
    """Client 3 fails in round 0."""

    @client_work(sends=["weights"])
    def train(self, ask, data, mine, ctx):
        if ctx.round == 0 and ctx.client == 3:
            raise ValueError("gone")
        return super().train(ask, data, mine, ctx)


def test_a_round_that_does_not_count_says_why_in_the_record(tmp_path):
    robust = Absent(algorithm=Krum(num_malicious_nodes=1), training=BRIEF)
    record = run_federated(job(tmp_path / "a", strategy=robust, num_rounds=2))
    first, second = record["rounds"]
    assert (first["counted"], second["counted"], record["finished"]) == (False, True, True)
    assert "needs the replies of 5 clients (2 f + 3), not of 4" in first["reason"]
    assert first["failed"] == [{"client": 3, "reason": "ValueError: gone (tests/runs/test_federated.py:165)"}]
    assert "reason" not in second


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"clients_per_round": 6}, "clients_per_round=6"),
        ({"min_success": 6}, "min_success=6"),
        ({"num_rounds": 0}, "num_rounds=0"),
        ({"strategy": ROBUST}, "clients_per_round=5: Krum .* replies of 7 clients .*; type .*_nodes=1, or ask"),
        ({"model": ConvNet(depth=4)}, "model.depth"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(tmp_path, wrong, what):
    with pytest.raises(ConfigError, match=what):
        run_federated(job(tmp_path / "a", **wrong))
    assert not (tmp_path / "a").exists()


def test_golden(tmp_path):
    # the published start of every comparison: digits, ten clients, niid_bench, alpha 0.5, seed 0
    published = job(tmp_path / "a", recipe=Dirichlet(num_clients=10, alpha=0.5), strategy=OneShot(training=TRAINING))
    sim, _, scenario = make_simulation(published)
    assert scenario.sha256 == "935fd424f6a393de7397024e6a42f20f2fb89e35e6a01f300400cb92500a03e0"
    assert [len(sim.shard(client, 0)) for client in range(10)] == [
        86,
        152,
        75,
        131,
        166,
        143,
        153,
        136,
        158,
        237,
    ]
    record = run_federated(published)
    assert record["communication"]["up"] == {"payload_bytes": 10445, "wire_bytes": 29434}
    assert record["communication"]["down"] == {"payload_bytes": 320, "wire_bytes": 2390}
    assert record["communication"]["not_counted_wire_bytes"] > 0  # the roll call
    assert record["accuracy"]["last"] == pytest.approx(0.925, abs=0.03)  # rounding differs between processors
