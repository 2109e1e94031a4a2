"""The schema of a record: what every verb has just written is in it, and the documentation is made from it."""

import subprocess
import sys

import jsonschema
import pytest

from fedcl.core.record_schema import json_schema


def unknown(value, schema, parts, place=""):
    """Places of a record that its schema does not name."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return min((unknown(value, option, parts, place) for option in schema["anyOf"]), key=len)
    if isinstance(value, list):
        return [one for item in value for one in unknown(item, schema.get("items", {}), parts, f"{place}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = []
    for key, item in value.items():
        known = schema["properties"].get(key)
        found += [f"{place}.{key}"] if known is None else unknown(item, known, parts, f"{place}.{key}")
    return found


def test_every_key_of_every_record_is_in_the_schema(records):
    schema = json_schema()
    for record in records.values():
        part = {"$ref": schema["discriminator"]["mapping"][record["verb"]]}
        assert unknown(record, part, schema["$defs"]) == []
        assert unknown(record | {"colour": 1}, part, schema["$defs"]) == [".colour"]  # and it would be seen


def test_records_are_valid_json_schema(records):
    checker = jsonschema.Draft202012Validator(json_schema())
    for record in records.values():
        checker.validate({name: part for name, part in record.items() if part is not None})
    with pytest.raises(jsonschema.ValidationError):
        checker.validate(next(iter(records.values())) | {"seed": "0"})


def test_the_documentation_is_up_to_date(root):
    subprocess.run([sys.executable, root / "scripts/record_schema.py", "--check"], check=True, cwd=root)
