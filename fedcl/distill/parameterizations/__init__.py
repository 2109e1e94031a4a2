"""Parameterizations, one file each, with the decoder under the name `DECODER`."""

from collections.abc import Mapping
from importlib import import_module

from fedcl.core.errors import WireError
from fedcl.core.targets import check_values
from fedcl.core.types import Decoder


def load_decoder(spec: Mapping[str, int | float | str | bool]) -> Decoder:
    """Decoder that a message or a file names, found again from `Decoder.spec()`.

    WireError where there is no parameterization of that name, or its decoder does not take these numbers.
    """
    numbers = dict(spec)
    name = numbers.pop("name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise WireError(f"a decoder is named by an identifier, got {name!r}")
    try:
        kind = import_module(f"{__name__}.{name}").DECODER
    except (ImportError, AttributeError):
        raise WireError(
            f"no decoder '{name}': {__name__.replace('.', '/')}/{name}.py does not define DECODER"
        ) from None
    try:
        check_values(kind, numbers, name)
        return kind(**numbers)
    except Exception as error:
        raise WireError(f"decoder '{name}' refuses {numbers}: {error}") from error
