"""A file that grows, and is cut back to a mark."""

import pytest

from fedcl.core.errors import RunError
from fedcl.core.journal import Journal


def grown(path):
    """A journal of three lines, and its mark after two."""
    journal = Journal(path)
    journal.begin("head\n")
    journal.append("one\n")
    mark = journal.mark()
    journal.append("two\n")
    return journal, mark


@pytest.mark.parametrize("more", ["", "three\nfo", "\x00\xff"])
def test_it_is_cut_back_to_its_mark_and_goes_on(tmp_path, more):
    path = tmp_path / "a"
    _, mark = grown(path)
    with path.open("a") as file:
        file.write(more)
    again = Journal(path)
    assert again.resume(mark) == path.read_text() == "head\none\n"
    again.append("2\n")
    assert path.read_text() == "head\none\n2\n"
    assert Journal(path).resume(again.mark()) == "head\none\n2\n"


def test_begin_forgets_what_was_there(tmp_path):
    journal, _ = grown(tmp_path / "a")
    first = journal.mark()
    journal.begin("head\n")
    journal.append("one\ntwo\n")
    assert journal.mark() == first  # of the content, not of how it came


@pytest.mark.parametrize("damage", [lambda b: b[:3] + b"x" + b[4:], lambda b: b[:-5], lambda b: b"", None])
def test_damage_before_the_mark_is_one_line(tmp_path, damage):
    path = tmp_path / "a"
    _, mark = grown(path)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(RunError, match=f"{path}.*delete {tmp_path} to start again") as caught:
        Journal(path).resume(mark)
    assert len(str(caught.value).splitlines()) == 1
    assert (path.read_bytes() if path.exists() else None) == left  # it may still be mended by hand
