"""The ledger: what crossed the wire, one row a message.

Payload bytes are the elements of the arrays on the wire dtype, quantisation constants included; equal arrays of
one message travel once and count once. Wire bytes are the serialised Flower objects that carry them. Both are what
arrived, never what a sender says of it; a reply that was refused is of the kind "refused", whatever it called its
parts. The roll call stands apart and is in no total; there is no evaluation traffic.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DIRECTIONS = ("up", "down")
ROLL_CALL = "roll call"  # the kind of messages that are in no total
FILE = "ledger.csv"
COLUMNS = ("round", "step", "client", "direction", "kind", "payload_bytes", "wire_bytes", "delivered", "parts")
HEADER = ",".join(COLUMNS) + "\n"
BYTES = ("payload_bytes", "wire_bytes")
NOTHING: Mapping[str, Any] = {  # sent so far: what a total starts from
    **{direction: dict.fromkeys(BYTES, 0) for direction in DIRECTIONS},
    **{"by_kind": {}, "messages": 0, "not_counted_wire_bytes": 0},
}


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One message between the server and one client."""

    round: int  # counted from 0
    step: int
    client: int  # partition id
    direction: str  # "up" (client to server) or "down"
    kind: str  # the client half that was asked for, or ROLL_CALL
    payload_bytes: int
    wire_bytes: int
    parts: Mapping[str, int] = field(default_factory=dict)  # payload bytes by content: images, weights, ...
    delivered: bool = True  # False: the message was sent and its answer never used


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Rows of a round, say, in order of question, client and direction. A run keeps running totals, no rows."""

    rows: tuple[Transfer, ...] = ()

    def counted(self) -> list[Transfer]:
        """The rows that make the totals: questions and replies."""
        return [row for row in self.rows if row.kind != ROLL_CALL]

    def totals(self, direction: str) -> dict[str, int]:
        """{"payload_bytes", "wire_bytes"} of one direction."""
        rows = [row for row in self.counted() if row.direction == direction]
        return {name: sum(getattr(row, name) for row in rows) for name in BYTES}

    def communication(self, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The record's `communication` part after these rows, from what it was before them.

        `by_kind` has payload bytes by content, both directions, and "framing": what serialisation adds.
        """
        before = before or NOTHING
        both = {
            direction: {name: before[direction][name] + size for name, size in self.totals(direction).items()}
            for direction in DIRECTIONS
        }
        rows, kinds = self.counted(), dict(before["by_kind"])
        for row in rows:
            for kind, size in (*row.parts.items(), ("framing", row.wire_bytes - row.payload_bytes)):
                kinds[kind] = kinds.get(kind, 0) + size
        apart = sum(row.wire_bytes for row in self.rows if row.kind == ROLL_CALL)
        return {
            **both,
            "total_wire_bytes": sum(both[direction]["wire_bytes"] for direction in DIRECTIONS),
            "by_kind": dict(sorted(kinds.items())),
            "messages": before["messages"] + len(rows),
            "not_counted_wire_bytes": before["not_counted_wire_bytes"] + apart,
        }

    def to_csv(self) -> str:
        """One line a message, without the header; contents as `name:bytes` joined by `;`."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for row in self.rows:
            parts = ";".join(f"{name}:{size}" for name, size in sorted(row.parts.items()))
            cells = vars(row) | {"delivered": int(row.delivered), "parts": parts}
            writer.writerow([cells[name] for name in COLUMNS])
        return out.getvalue()
