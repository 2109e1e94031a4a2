"""Time and memory of a report over many records: python scripts/benchmark_report.py [--records 1000].

Writes synthetic records (federated, continual and distill runs of several methods, partitions and models)
to a temporary folder, reports them, and prints seconds, peak memory and sizes.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fedcl.report import write_report

METHODS = ("fedavg", "fedprox", "fedadam", "feddm", "one_shot")
SEEDS = 5
ROUNDS = 50
CLIENTS = 10


def base(verb: str, index: int, method: str, seed: int) -> dict[str, Any]:
    """What every record holds; each block of `METHODS` x `SEEDS` records is one comparable group."""
    block = index // (len(METHODS) * SEEDS)
    return {
        "verb": verb,
        "finished": True,
        "config": {
            "choices": {"dataset": "digits", "model": "convnet", "strategy": method, "distiller": method},
            "strategy": {"_target_": method},
            "dataset": {"_target_": "fedcl.data.digits.Digits"},
            "model": {"_target_": "fedcl.models.convnet.ConvNet", "width": 16 + block},
            "seed": seed,
        },
        "seed": seed,
        "command": ["fedcl", verb, f"strategy={method}", f"seed={seed}"],
        "versions": {"python": "3.11", "fedcl": "0"},
        "seconds": 10.0,
        "scenario": {
            "name": f"dirichlet({block})",
            "sha256": f"{block:032x}{seed:032x}",
            "num_clients": CLIENTS,
        },
    }


def federated(index: int, method: str, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    rounds = 1 if method == "one_shot" else ROUNDS
    size = {"feddm": 40_000, "one_shot": 30_000}.get(method, 900_000)
    accuracies = (1 - 0.8 * np.exp(-np.arange(1, rounds + 1) / 8) + rng.normal(0, 0.005, rounds)).clip(0, 1)
    way = {"payload_bytes": size - 500, "wire_bytes": size}
    rows = [
        {"round": r, "step": 0, "accuracy": float(a), "clients": list(range(CLIENTS)), "failed": []}
        | {"up": way, "down": way, "seconds": 0.2}
        for r, a in enumerate(accuracies)
    ]
    totals = {kind: rounds * value for kind, value in way.items()}
    kinds = {"weights": 2 * totals["payload_bytes"], "framing": 1000 * rounds}
    return base("federated", index, method, seed) | {
        "accuracy": {"last": float(accuracies[-1]), "mean_last5": 0.9, "best": float(accuracies.max())},
        "rounds": rows,
        "communication": {
            "up": totals,
            "down": totals,
            "total_wire_bytes": 2 * rounds * size,
            "by_kind": kinds,
        },
    }


def continual(index: int, method: str, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    matrix = rng.uniform(0.4, 1, (10, 10)).round(4).tolist()
    last = float(np.mean(matrix[-1]))
    record = base("continual", index, method, seed)
    record["scenario"] |= {"groups": [f"class {group}" for group in range(10)], "first_steps": list(range(10))}
    return record | {
        "accuracy": {"last": last, "mean_last5": last, "best": last},
        "matrix": matrix,
        "continual": {"average_accuracy": last, "forgetting": 0.1},
        "memory": {"bytes": 64_000, "images": 100},
    }


def distill(index: int, method: str, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    accuracy = {"mean": float(rng.uniform(0.6, 0.9)), "std": 0.01, "nets": 5}
    part = {"method": method, "ipc": 1, "bytes": 640, "decoded_images": 10, "seconds": 1.0}
    part |= {"accuracy": accuracy, "controls": {"random": {"accuracy": {"mean": 0.5}}}}
    return base("distill", index, method, seed) | {"distillation": part}


def write_records(root: Path, count: int) -> None:
    """Eight in ten federated, one continual, one distill."""
    rng = np.random.default_rng(0)
    for index in range(count):
        block = index // (len(METHODS) * SEEDS)
        make = {8: continual, 9: distill}.get(block % 10, federated)
        record = make(index, METHODS[index // SEEDS % len(METHODS)], index % SEEDS, rng)
        folder = root / f"{index:05d}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=1000)
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_records(root / "runs", count)
        start = time.perf_counter()
        page = write_report(root / "runs", root / "report")
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        drawn = len(list((root / "report" / "figures").iterdir()))
        megabytes = page.stat().st_size / 1e6
    print(f"{count} records: {seconds:.1f} s, peak {peak:.0f} MiB, page {megabytes:.1f} MB, {drawn} figures")


if __name__ == "__main__":
    main()
