"""Records that every verb has just written, through the whole report."""

import csv
import json
import re

import pytest

from fedcl.report import compare, comparison_markdown, comparison_table, load_runs, statements, write_report


@pytest.fixture(scope="module")
def page(real, tmp_path_factory):
    return write_report(real, tmp_path_factory.mktemp("report"))


def test_every_verb_is_read_and_put_beside_its_like(real):
    runs, skipped = load_runs(real)
    assert skipped == []
    assert [(g.verb, sorted({method.family for method in g.methods})) for g in compare(runs).groups] == [
        ("federated", ["fedavg", "feddm", "one_shot"]),
        ("federated", ["fedavg_replay"]),
        ("continual", ["replay"]),
        ("continual", ["finetune"]),
        ("distill", ["dm"]),
    ]


def test_a_run_from_objects_and_one_from_the_command_line_are_one_method(real):
    (group, *_) = compare(load_runs(real)[0]).groups
    assert sum(len(method.repeats) for method in group.methods) == 1


def test_tables_name_wire_and_participation(real):
    runs, _ = load_runs(real)
    group = compare(runs).groups[0]
    named = {method.name for method in group.methods}
    assert {"fedavg · float32 · all clients", "fedavg · uint8 · all clients"} < named
    assert "feddm · dm · uint8 · 1 of 2 clients" in named
    assert all("uint8" in name or "float32" in name for name in named)
    texts = [*comparison_table(runs).columns[0].cells, *statements(compare(runs)), comparison_markdown(runs)]
    assert any("all clients a round, wire float32" in text for text in texts)  # of the stream, which is alone


def test_ratios_are_those_of_the_records(real, page, records):
    totals = {name: record.get("communication", {}).get("total_wire_bytes") for name, record in records.items()}
    with (page.parent / "results.csv").open() as file:
        lines = {line["run"].rpartition("/")[2]: line for line in csv.DictReader(file)}
    assert float(lines["one_shot"]["times_fewer_than_fedavg"]) == totals["fedavg-uint8"] / totals["one_shot"]
    assert lines["one_shot"]["compared_with"] == "fedavg · uint8 · all clients"
    assert lines["fedavg"]["times_fewer_than_fedavg"] == "1.0"
    assert lines["feddm"]["times_fewer_than_fedavg"] == ""  # nobody else let one client of two take part
    for name, line in lines.items():
        rounds = records[name].get("rounds", [])
        assert sum(row[way]["wire_bytes"] for row in rounds for way in ("up", "down")) == (totals[name] or 0)
        assert line["total_wire_bytes"] == str(totals[name] or "")


def test_groups_of_a_stream_have_the_names_of_the_record(page, records):
    text = page.read_text()
    for name in ("federated-stream", "classes", "domains"):
        for group in records[name]["scenario"]["groups"]:
            assert f'<th scope="col">{group}</th>' in text
    assert "classes 0-4" in text
    assert "rotate:90" in text
    assert not re.search(r">group \d+<", text)


def test_figures_of_the_stream_are_the_records(page, records):
    text = page.read_text()
    part = records["classes"]["continual"]
    assert f">{100 * part['average_accuracy']:.2f} %</td>" in text
    assert f">{100 * part['forgetting']:.2f} %</td>" in text
    assert ">20</td>" in text  # stored images, no percentage
    assert not re.search(r">\d{4,}\.\d+ %<", text)
    assert "one-off" not in text  # bytes that no record ever had
    assert "<caption><span>Figures of the stream" in text


def test_captions_of_bytes_name_the_wire_where_all_share_it(page):
    captions = re.findall(r"<caption><span>(.*?)</span>", page.read_text())
    bytes_of = [caption for caption in captions if "wire bytes" in caption.lower() or "in the bytes" in caption]
    assert len(bytes_of) == 8  # four tables of two groups
    assert [("(all clients a round, wire float32)" in caption) for caption in bytes_of] == [False] * 4 + [True] * 4
    svg = (page.parent / "figures" / "group-2-accuracy-bytes.svg").read_text()
    assert "up and down (all clients a round, wire float32)" in svg


def test_rows_that_were_not_trained_for_are_dashes(make, tmp_path):
    nothing = dict.fromkeys(("forgetting", "backward_transfer", "forward_transfer"))
    late = make.continual("joint", matrix=((None, None), (0.5, 0.75)))
    late["continual"] |= nothing
    make.save("a", late)
    make.save("b", make.continual("replay"))
    text = write_report(make.root, tmp_path / "out").read_text()
    assert '<th scope="row">1</th><td>–</td><td>–</td>' in text
    row = re.search(r"</i>joint</th>(.*?)</tr>", text).group(1)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[2] == "–"
    assert "forward transfer" not in text  # no method has it
    assert "None" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_holds_the_records(page, records):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL).group(1)
    shown = {run["path"].rpartition("/")[2]: run["record"] for run in json.loads(data)["runs"]}
    for name, record in records.items():
        assert shown[name] == {part: value for part, value in record.items() if part != "rounds" and value is not None}
