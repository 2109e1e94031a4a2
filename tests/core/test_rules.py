"""Rules of fields: what they allow, how they are worded, and that no subclass loses one."""

import importlib
import pkgutil
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, get_type_hints

import pytest

import fedcl
import scenarios
import strategies
from fedcl.core.checks import annotations_of
from fedcl.core.errors import ConfigError
from fedcl.core.rules import Checked, Rule, each, number, one_of, whole
from fedcl.core.targets import check_values


@dataclass(frozen=True, kw_only=True)
class Sample(Checked):
    config_key = "sample"

    count: Annotated[int, whole(1, example=3)] = 1
    levels: Annotated[int, whole(1, 127, example=7)] = 7
    rate: Annotated[float | None, number(above=0, example=0.5)] = None
    share: Annotated[float, number(above=0, most=1, example=0.1)] = 0.1
    average: Annotated[float, number(least=0, below=1, example=0.9)] = 0.0
    kind: Annotated[str, one_of("a", "b")] = "a"
    widths: Annotated[tuple[int, ...], each(whole(1, example=4), empty=False)] = (4, 4)
    kinds: Annotated[tuple[str, ...], each(one_of("a", "b"))] = ()
    free: tuple[int, ...] | str = ()


BAD = [
    ({"count": 0}, "count=0 must be a whole number >= 1; type sample.count=3"),
    ({"count": 1.5}, "count=1.5 must be a whole number >= 1; type sample.count=3"),
    ({"count": True}, "count=true must be a whole number >= 1; type sample.count=3"),
    ({"count": None}, "count=null must be a whole number >= 1; type sample.count=3"),
    ({"levels": 128}, "levels=128 must be a whole number in [1, 127]; type sample.levels=7"),
    ({"rate": 0}, "rate=0 must be a number > 0, or null; type sample.rate=0.5"),
    ({"rate": float("inf")}, "rate=inf must be a number > 0, or null; type sample.rate=0.5"),
    ({"rate": float("nan")}, "rate=nan must be a number > 0, or null; type sample.rate=0.5"),
    ({"share": 1.1}, "share=1.1 must be a number in (0, 1]; type sample.share=0.1"),
    ({"average": 1}, "average=1 must be a number in [0, 1); type sample.average=0.9"),
    ({"kind": "c"}, "kind=c must be one of a, b; type sample.kind=a"),
    ({"widths": ()}, "widths=[] must be a list [...] of at least one, of which each is a whole"),
    ({"widths": (2, 0)}, "widths=[2, 0] must be a list [...] of at least one, of which each is a whole"),
    ({"kinds": ["c"]}, "kinds=[c] must be a list [...] of which each is one of a, b; type sample.kinds=[a]"),
]


@pytest.mark.parametrize(("values", "said"), BAD)
def test_a_value_that_breaks_its_rule_says_what_to_type(values, said):
    with pytest.raises(ConfigError) as caught:
        Sample(**values)
    assert str(caught.value).startswith(f"sample.{said}")


def test_a_configuration_names_the_key_that_was_typed():
    with pytest.raises(ConfigError, match=r"a\.b\.count=0 must be a whole number >= 1; type a\.b\.count=3"):
        check_values(Sample, {"count": 0}, "a.b")
    with pytest.raises(ConfigError, match=r"a\.b\.count=x does not fit; it must be a whole number"):
        check_values(Sample, {"count": "x"}, "a.b")
    check_values(Sample, {"rate": None, "widths": [1], "kinds": []}, "a.b")


def test_a_list_fills_a_tuple():
    assert Sample(widths=[1, 2], free=[3]) == Sample(widths=(1, 2), free=(3,))


def test_a_part_without_rules_works():
    @dataclass
    class Mine(Checked):
        count: "Nowhere"  # noqa: F821

        def __post_init__(self):
            self.double = 2 * self.count

    class Plain(Checked):
        def __init__(self, count):
            self.count = count

    assert (Mine(-1).double, Plain(-1).count) == (-2, -1)


def parts(kind=Checked):
    for sub in kind.__subclasses__():
        yield sub
        yield from parts(sub)


def ruled(part):
    hints = get_type_hints(part, include_extras=True)  # of a class that is no dataclass, too
    return {name for name, hint in hints.items() if any(isinstance(r, Rule) for r in getattr(hint, "__metadata__", ()))}


def test_no_class_loses_a_rule_and_every_one_has_its_key():
    for package in (fedcl, strategies, scenarios):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    homes = ("fedcl.", "strategies.", "scenarios.")
    own = [part for part in parts() if is_dataclass(part) and part.__module__.startswith(homes)]
    assert len(own) > 80
    for part in own:
        assert annotations_of(part) or not fields(part), f"{part.__name__} has annotations that cannot be evaluated"
        lost = {name for parent in part.__mro__ for name in ruled(parent)} - ruled(part)
        assert not lost, f"{part.__name__} declares {lost} without a rule"
        assert part.config_key or part.__module__.startswith("fedcl.runs."), part
