"""The ledger: what crossed the wire, one row a message.

Payload bytes are the elements of the arrays on the wire dtype, quantisation constants included. Wire bytes
are the serialised Flower objects that carry them. Evaluation traffic and the roll call stand apart and
are in no total.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DIRECTIONS = ("up", "down")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One message between the server and one client."""

    round: int  # counted from 0
    step: int
    client: int  # partition id
    direction: str  # "up" (client to server) or "down"
    kind: str = "train"  # "train" counts; "evaluate" and "roll call" stand apart
    payload_bytes: int
    wire_bytes: int
    parts: Mapping[str, int] = field(default_factory=dict)  # payload bytes by content: images, weights, ...
    delivered: bool = True  # False: the message was sent and its answer never used


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Rows in order of round, client and direction. Immutable: `add` gives a new ledger."""

    rows: tuple[Transfer, ...] = ()

    def add(self, rows: Iterable[Transfer]) -> Ledger:
        return Ledger(rows=(*self.rows, *rows))

    def counted(self, round: int | None = None) -> list[Transfer]:
        """The rows that make the totals: training traffic, of one round or of all."""
        return [row for row in self.rows if row.kind == "train" and round in (None, row.round)]

    def totals(self, direction: str, round: int | None = None) -> dict[str, int]:
        """{"payload_bytes", "wire_bytes"} of one direction."""
        rows = [row for row in self.counted(round) if row.direction == direction]
        return {
            "payload_bytes": sum(row.payload_bytes for row in rows),
            "wire_bytes": sum(row.wire_bytes for row in rows),
        }

    def by_kind(self) -> dict[str, int]:
        """Payload bytes by content, both directions, plus "framing": what serialisation adds."""
        kinds: dict[str, int] = defaultdict(int)
        for row in self.counted():
            for kind, size in row.parts.items():
                kinds[kind] += size
            kinds["framing"] += row.wire_bytes - row.payload_bytes
        return dict(sorted(kinds.items()))

    def communication(self) -> dict:
        """The record's `communication` part."""
        totals = {direction: self.totals(direction) for direction in DIRECTIONS}
        return {
            **totals,
            "total_wire_bytes": sum(total["wire_bytes"] for total in totals.values()),
            "by_kind": self.by_kind(),
            "messages": len(self.counted()),
            "not_counted_wire_bytes": sum(row.wire_bytes for row in self.rows if row.kind != "train"),
        }

    def to_csv(self) -> str:
        """One line a message, with a header; contents as `name:bytes` joined by `;`."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            [
                "round",
                "step",
                "client",
                "direction",
                "kind",
                "payload_bytes",
                "wire_bytes",
                "delivered",
                "parts",
            ]
        )
        for row in self.rows:
            parts = ";".join(f"{name}:{size}" for name, size in sorted(row.parts.items()))
            writer.writerow(
                [
                    *(row.round, row.step, row.client, row.direction, row.kind),
                    *(row.payload_bytes, row.wire_bytes, int(row.delivered), parts),
                ]
            )
        return out.getvalue()
