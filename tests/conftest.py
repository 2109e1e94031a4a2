"""What several test files share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def rendered():
    """For a test that looks at pictures, in a file that uses `blank_pictures`."""


@pytest.fixture
def blank_pictures(request, monkeypatch):
    """Pictures are empty files: drawing and rendering take more than half the time of a small run."""
    if "rendered" in request.fixturenames:
        return

    def blank(_, path, *__):
        path.touch()

    def blank_partition(*given):
        for suffix in (".png", ".svg"):
            given[-1].with_suffix(suffix).touch()

    def blank_continual(_, __, folder, *___):
        for name in ("curve.png", "matrix.png"):
            (folder / name).touch()

    for module in ("federated_record", "distill"):
        monkeypatch.setattr(f"fedcl.runs.{module}.draw_summaries", blank)
    for module in ("federated_record", "continual"):
        monkeypatch.setattr(f"fedcl.runs.{module}.draw_continual", blank_continual)
    monkeypatch.setattr("fedcl.runs.federated_record.draw_partition", blank_partition)
    monkeypatch.setattr("fedcl.runs.distill.draw_losses", blank)


@pytest.fixture(scope="session", autouse=True)
def nothing_slow_on_the_side():
    """No file is flushed to the disk (no test cuts the power), and Flower's arrays do not collect garbage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        patch.setattr("flwr.app.message.arrayrecord.gc", SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture
def timeless():
    """A record without its times: what two runs of one job share."""

    def strip(node):
        if isinstance(node, dict):
            return {key: strip(value) for key, value in node.items() if key != "seconds"}
        return [strip(value) for value in node] if isinstance(node, list) else node

    return strip


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command here, in an empty folder: command("federated", ...) -> (status, stdout, stderr)."""
    from fedcl.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def local_clients():
    """The class of clients whose halves are called directly, without a wire."""
    from dataclasses import replace

    from fedcl.federated.contract import Clients, work_at_clients
    from fedcl.federated.payload import ClientState

    class LocalClients(Clients):
        def __init__(self, strategy, sets, ctx, states=None):
            self.strategy, self.sets, self.ctx = strategy, {data.origin.client: data for data in sets}, ctx
            self.ids, self.num_clients = tuple(self.sets), len(self.sets)
            self.states = {} if states is None else states  # client -> what it keeps
            self.asked, self.replies = [], []

        def ask(self, work, payload, *, to=None):
            several = isinstance(payload, dict)
            ids = [c for c in self.ids if (to is None or c in to) and (not several or c in payload)]
            contexts = [replace(self.ctx, client=client) for client in ids]
            kept = [self.states.get(client, ClientState()) for client in ids]
            sets = [self.sets[client] for client in ids]
            if several:
                replies = []
                for each in zip(ids, sets, kept, contexts, strict=True):
                    one = [[part] for part in each[1:]]
                    replies += work_at_clients(self.strategy, work.__name__, payload[each[0]], *one)
            else:
                replies = work_at_clients(self.strategy, work.__name__, payload, sets, kept, contexts)
            self.states |= {reply.client: reply.keep for reply in replies if reply.keep is not None}
            self.asked.append(payload)
            self.replies.extend(replies)
            return iter(replies)

    return LocalClients


@pytest.fixture
def run_rounds(local_clients):
    """Rounds of a strategy at clients without a wire: (strategy, ctx, shards of each round) -> last state, clients."""
    from dataclasses import replace

    def run(strategy, ctx, shards_of_round, state=None, states=None):
        state, states, seen = state or strategy.init(ctx), {} if states is None else states, []
        for round, shards in enumerate(shards_of_round):
            now = replace(ctx, round=round, step=shards[0].origin.step)
            seen.append(local_clients(strategy, shards, now, states))
            state = strategy.round(state, seen[-1], now)
        return state, seen

    return run


@pytest.fixture
def given():
    """The class of clients that have answered already: given(replies).ask(...) gives them."""
    from fedcl.federated.contract import Clients

    class Given(Clients):
        def __init__(self, *replies):
            self.ids = tuple(reply.client for reply in replies)
            self.num_clients = len(self.ids)
            self.replies, self.asked = replies, []

        def ask(self, work, payload, *, to=None):
            self.asked.append(payload)
            return iter(self.replies)

    return Given
