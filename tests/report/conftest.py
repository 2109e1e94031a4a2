"""Hand-made records, small enough to check in the head."""

import json

import pytest

CURVE = ((100, 0.5), (100, 0.96))


def federated(strategy="fedavg", seed=0, curve=CURVE, *, sha=None, wire="float32", **changes):
    """A record whose rounds cost `(bytes, accuracy)`: a quarter up, the rest down, 4 bytes framing each."""
    rows = [
        {
            "round": index,
            "step": 0,
            "accuracy": accuracy,
            "clients": [0, 1],
            "failed": [],
            "up": {"payload_bytes": size // 4 - 4, "wire_bytes": size // 4},
            "down": {"payload_bytes": size - size // 4 - 4, "wire_bytes": size - size // 4},
            "seconds": 0.5,
        }
        for index, (size, accuracy) in enumerate(curve)
    ]
    ways = {
        way: {kind: sum(row[way][kind] for row in rows) for kind in ("payload_bytes", "wire_bytes")}
        for way in ("up", "down")
    }
    accuracies = [accuracy for _, accuracy in curve if accuracy is not None]
    payload = sum(way["payload_bytes"] for way in ways.values())
    total = sum(way["wire_bytes"] for way in ways.values())
    record = {
        "verb": "federated",
        "finished": True,
        "config": {
            "choices": {
                "dataset": "digits",
                "model": "convnet",
                "strategy": f"federated/{strategy}",
                "wire": wire,
            },
            "dataset": {"_target_": "fedcl.data.digits.Digits", "root": None},
            "model": {"_target_": "fedcl.models.convnet.ConvNet", "width": 32},
            "num_rounds": len(rows),
            "seed": seed,
            "out": f"runs/{strategy}-{seed}",
        },
        "seed": seed,
        "command": ["fedcl", "federated", f"strategy={strategy}", f"seed={seed}"],
        "versions": {"python": "3.11.9", "fedcl": "0.1.0"},
        "seconds": 12.5,
        "scenario": {
            "name": "dirichlet(0.5)",
            "sha256": sha or str(seed).zfill(64),
            "num_clients": 2,
            "num_steps": 1,
            "class_counts": [[3, 0], [1, 4]],
        },
        "accuracy": {
            "last": accuracies[-1],
            "mean_last5": sum(accuracies[-5:]) / len(accuracies[-5:]),
            "best": max(accuracies),
        },
        "rounds": rows,
        "communication": {
            **ways,
            "total_wire_bytes": total,
            "by_kind": {"weights": payload, "framing": total - payload},
            "messages": 4 * len(rows),
            "not_counted_wire_bytes": 7,
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = record
        for name in parents:
            place = place[name]
        place[last] = value
    return record


def continual(strategy="replay", seed=0, matrix=((0.9, None), (0.5, 0.7)), **changes):
    record = federated(strategy, seed, **changes)
    for part in ("rounds", "communication"):
        del record[part]
    rows = [list(row) for row in matrix]
    last = sum(rows[-1]) / len(rows[-1])
    return {
        **record,
        "verb": "continual",
        "accuracy": {"last": last, "mean_last5": last, "best": last},
        "matrix": rows,
        "continual": {"average_accuracy": last, "forgetting": {"first minus last": rows[0][0] - rows[-1][0]}},
        "memory": {"bytes": 6400, "images": 100},
    }


def distill(method="dm", seed=0, ipc=1, mean=0.88, *, published=None, **changes):
    record = federated(method, seed, **changes)
    for part in ("rounds", "communication", "scenario", "accuracy"):
        del record[part]
    record["config"]["choices"] |= {"strategy": None, "distiller": method}
    record["config"]["distiller"] = {"ipc": ipc} | ({"published": published} if published else {})
    controls = {"random": {"accuracy": {"mean": 0.6, "std": 0.02}}, "kmeans": {"mean": 0.75, "std": 0.01}}
    return {
        **record,
        "verb": "distill",
        "distillation": {
            "method": method,
            "ipc": ipc,
            "bytes": 640 * ipc,
            "decoded_images": 10 * ipc,
            "seconds": 3.0,
            "accuracy": {"mean": mean, "std": 0.01, "nets": 5},
            "controls": controls,
        },
    }


class Makers:
    federated = staticmethod(federated)
    continual = staticmethod(continual)
    distill = staticmethod(distill)

    def __init__(self, root):
        self.root = root

    def save(self, name, record):
        """Write a record (or raw text) as `root/name/record.json` and return the folder."""
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record if isinstance(record, str) else json.dumps(record))
        return folder


@pytest.fixture
def make(tmp_path):
    return Makers(tmp_path / "runs")


@pytest.fixture
def three_seeds(make):
    """FedAvg needs 200 bytes for 96 %, one-shot 20, 25 and 40: 10, 8 and 5 times fewer."""
    for seed, size in enumerate((20, 25, 40)):
        make.save(f"fedavg-{seed}", federated("fedavg", seed))
        make.save(f"one_shot-{seed}", federated("one_shot", seed, curve=((size, 0.97),)))
    return make
