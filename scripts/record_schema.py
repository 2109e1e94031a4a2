"""Write docs/record.schema.json and docs/record.md from fedcl/core/record_schema.py, or check that they are its own.

python scripts/record_schema.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedcl.core.record_schema import VERSION, json_schema

DOCS = Path(__file__).resolve().parents[1] / "docs"


def type_of(schema: dict[str, Any]) -> str:
    """A JSON type in words: "list of Round", "number or null"."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(type_of(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {type_of(schema['items'])}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"table of {type_of(values)}" if isinstance(values, dict) else "table"
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(kind, kind)


def page(schema: dict[str, Any]) -> str:
    """The schema as Markdown, a table for each part."""
    lines = [
        "# record.json",
        "",
        f"Version {VERSION}. Written by `python scripts/record_schema.py` from `fedcl/core/record_schema.py`; as JSON",
        "Schema in [record.schema.json](record.schema.json). Fractions lie in [0, 1], sizes are bytes, times are",
        "seconds; rounds, steps and clients count from 0. While a run goes on, rounds, steps and the matrix are",
        "lines of `rows.jsonl` beside it.",
    ]
    parts = schema["$defs"]
    records = [option["$ref"].rpartition("/")[2] for option in schema["oneOf"]]
    for name in [*records, *sorted(set(parts) - set(records))]:
        part = parts[name]
        lines += ["", f"## {name}", "", part.get("description", ""), "", "| key | value | |", "|---|---|---|"]
        for key, value in part["properties"].items():
            needed = "" if key in part.get("required", ()) else "may be absent"
            about = "; ".join(text for text in (value.get("description"), needed) if text)
            lines.append(f"| `{key}` | {type_of(value)} | {about} |")
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Path to content of everything that is generated."""
    schema = json_schema()
    return {
        DOCS / "record.schema.json": json.dumps(schema, indent=1) + "\n",
        DOCS / "record.md": page(schema),
    }


if __name__ == "__main__":
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.exit(f"not up to date: {', '.join(path.name for path in stale)}" if stale else 0)
    for path, text in files().items():
        path.write_text(text)
