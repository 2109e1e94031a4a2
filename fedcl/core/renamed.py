"""Names of 0.1.0 that have changed: typed, they are refused with the new name; in an old record, they are read."""

KEYS = {  # any part of a dotted key, or a group
    "pool": "networks",
    "learn_images": "optimise_images",
    "lr_extra": "lr_scalars",
}
CLASSES = {"Given": "AroundGlobal", "Nothing": "NoObjective", "NoPool": "NoNetworks"}  # without their modules
OPTIONS = {("networks", "given"): "around_global"}  # (group, old option) -> new option


def renamed_key(key: str) -> str | None:
    """The key as it is typed now, or None if no part of it was renamed."""
    parts = [KEYS.get(part, part) for part in key.split(".")]
    return ".".join(parts) if parts != key.split(".") else None


def renamed_option(group: str, option: str) -> str | None:
    """The option as it is typed now, or None if it was not renamed."""
    return OPTIONS.get((group, option))
