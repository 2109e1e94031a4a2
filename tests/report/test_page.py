import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from fedcl.report import compare, load_runs, write_report

ATTACK = "</script><script>alert(1)</script><b>&"


class Reader(HTMLParser):
    """What a browser would see: elements, their ids, the cells of tables, the text of the data script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.rows, self.data, self._in_data = [], [], [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self._in_data = attrs.get("id") == "data"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append(attrs.get("data-v"))

    def handle_data(self, data):
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag):
        self._in_data = False


def report(make, out="out"):
    page = write_report(make.root, make.root.parent / out)
    return page, Reader(page.read_text())


def test_every_number_is_the_records(three_seeds):
    page, reader = report(three_seeds)
    shown = {run["path"]: run for run in json.loads(reader.data)["runs"]}
    with (page.parent / "results.csv").open() as file:
        lines = {line["run"]: line for line in csv.DictReader(file)}
    assert len(shown) == len(lines) == 6
    for path in three_seeds.root.iterdir():
        record = json.loads((path / "record.json").read_text())
        run, line = shown[str(path)], lines[str(path)]
        rounds = record.pop("rounds")
        assert run["record"] == record
        assert run["rounds"] == [
            [row["round"], row["step"], row["accuracy"]]
            + [row[way][kind] for way in ("up", "down") for kind in ("payload_bytes", "wire_bytes")]
            + [row["seconds"]]
            for row in rounds
        ]
        assert float(line["accuracy_last"]) == record["accuracy"]["last"]
        assert int(line["up_wire_bytes"]) == record["communication"]["up"]["wire_bytes"]
        assert int(line["total_wire_bytes"]) == record["communication"]["total_wire_bytes"]
        expected = 200 / record["communication"]["total_wire_bytes"]
        assert float(line["times_fewer_than_fedavg"]) == expected


def test_cells_hold_the_exact_means(three_seeds):
    _, reader = report(three_seeds)
    row = next(row for row in reader.rows if row[:1] == ["fedavg"])
    values = [0.96, (0.5 + 0.96) / 2, 2, 50, 150, 200, 1, 12.5, 3]
    assert [float(value) for value in row[1:]] == pytest.approx(values)


def test_the_first_paragraph_is_the_answer(three_seeds):
    page, _ = report(three_seeds)
    first = re.search(r"<p[^>]*>(.*?)</p>", page.read_text()).group(1).replace("\xa0", " ")
    assert "one_shot needs the fewest bytes for 95 % accuracy: 28.3 ± 10.4 B" in first
    assert "7.67 ± 2.52 times fewer than fedavg" in first


def test_the_same_records_give_the_same_bytes(three_seeds):
    for name in ("c", "d"):
        three_seeds.save(name, three_seeds.continual(name))
    three_seeds.save("e", three_seeds.distill())
    first, second = (report(three_seeds, out)[0].parent for out in ("one", "two"))
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert {"report.html", "results.csv"} < set(map(str, names))
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]


def test_nothing_from_a_record_is_markup(make):
    record = make.federated(ATTACK, versions={ATTACK: ATTACK}, command=[ATTACK], **{"scenario.name": ATTACK})
    record["rounds"][0]["failed"] = [{"client": 0, "reason": ATTACK}]
    record["communication"]["by_kind"] = {ATTACK: 1}
    record["config"][ATTACK] = ATTACK
    make.save("a", record)
    make.save("b", make.federated("$x$ $"))
    make.save("c", make.distill(ATTACK, **{"config.distiller.published": {"digits": {"1": 0.9}}}))
    make.save("bad", make.federated(verb=ATTACK))
    page, reader = report(make)
    text = page.read_text()
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert [tag for tag, _ in reader.tags].count("script") == 2
    assert len(json.loads(reader.data)["runs"]) == 3


def test_published_numbers_do_not_tell_methods_apart(make):
    make.save("a", make.distill("dm"))
    make.save("b", make.distill("dm", seed=1, **{"config.distiller.published": {"digits": {"1": 0.5}}}))
    (group,) = compare(load_runs(make.root)[0]).groups
    assert [len(method.runs) for method in group.methods] == [2]


def test_incomparable_runs_get_their_own_sections(make):
    make.save("a", make.federated("fedavg"))
    make.save("b", make.federated("one_shot", sha="f" * 64))
    page, reader = report(make)
    assert {"group-1", "group-2"} <= set(reader.ids)
    assert "not all comparable" in page.read_text()
    for svg in (page.parent / "figures").iterdir():
        assert not {"fedavg", "one_shot"} <= set(re.findall("fedavg|one_shot", svg.read_text()))


def test_ids_are_unique_and_nothing_is_fetched(three_seeds):
    three_seeds.save("c", three_seeds.continual())
    three_seeds.save("d", three_seeds.distill())
    page, reader = report(three_seeds)
    assert len(set(reader.ids)) == len(reader.ids)
    text = page.read_text()
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(reader.ids)
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    for tag, attrs in reader.tags:
        assert tag != "img" or attrs["alt"]
        assert tag != "svg" or attrs["aria-label"]
        assert tag != "th" or attrs["scope"]
    figures = [path.read_text() for path in (page.parent / "figures").glob("*.svg")]
    assert len(figures) == 5
    assert not any("math" in svg for svg in figures)  # ticks are words of ours


def test_pictures_skips_failures_command_and_differences(make):
    record = make.federated("one_shot", command=["fedcl", "federated", "strategy=one shot"])
    record["rounds"][0]["failed"] = [{"client": 3, "reason": "ValueError: no\nimages"}]
    folder = make.save("a", record)
    (folder / "summaries.png").write_bytes(b"picture")
    make.save("b", make.federated("fedavg", **{"config.num_rounds": 9}))
    make.save("cut", "{")
    text = report(make)[0].read_text()
    assert f"data:image/png;base64,{base64.b64encode(b'picture').decode()}" in text
    assert "Client 3 gave no usable answer in round 1: ValueError: no images" in text
    assert "fedcl federated &#39;strategy=one shot&#39;" in text
    assert "<dt>num_rounds</dt><dd>9</dd>" in text
    assert "1 path skipped, and why" in text
    assert "Examples by client (rows) and class (columns)" in text  # drawn from class_counts


def test_a_budget_that_ended_a_run_is_named(make):
    record = make.federated("fedavg")
    record["stopped"] = {"by": "stop.accuracy", "value": 0.96, "limit": 0.95}
    make.save("a", record)
    assert "stopped early by stop.accuracy=0.95 at 0.96" in report(make)[0].read_text()


def test_continual_matrix_is_the_mean_over_seeds(make):
    make.save("a", make.continual(seed=0, matrix=((0.5, None), (0.25, 0.75))))
    make.save("b", make.continual(seed=1, matrix=((1.0, None), (0.75, 0.25))))
    _, reader = report(make)
    assert [None, "0.75", None] in reader.rows
    assert [None, "0.5", "0.5"] in reader.rows


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ({}, "89.00 % (another protocol)"),
        ({"model.width": 128, "distiller.steps": 20000}, "89.00 % (steps=20000, width=128)"),
        (
            {"a": 1, "b": 2, "distiller.augmentation.groups": [], "model._target_": "x.MLP", "model.width": 3},
            "89.00 % (width=3, a=1, b=2, 2 more)",
        ),
        ({"distiller.steps": 2, "model.width": 2}, "89.00 %"),
    ],
    ids=["unknown", "another", "much", "the same"],
)
def test_published_numbers_stand_beside_ours_with_what_differs(make, protocol, said):
    own = {
        "distiller.published": {"digits": {"1": 0.89}, "mnist": {"1": 1.0}},
        "distiller.published_protocol": protocol,
    }
    make.save("a", make.distill("dm", **{f"config.{key}": value for key, value in own.items()}))
    page, reader = report(make)
    row = next(row for row in reader.rows if row[:1] == ["dm"])
    assert [float(value) for value in row[1:7]] == pytest.approx([1, 640, 0.88, 0.75, 0.6, 0.89])
    assert f">{said}</td>" in page.read_text()
    assert ("dm, published, another protocol" in page.read_text()) == (said != "89.00 %")


def test_no_runs_still_make_a_page(make):
    make.root.mkdir()
    page, _ = report(make)
    assert "No finished run was found" in page.read_text()


def test_a_picture_opens_in_the_page(make):
    folder = make.save("a", make.federated("one_shot"))
    (folder / "summaries.png").write_bytes(b"picture")
    _, reader = report(make)
    kinds = [(tag, attrs.get("class")) for tag, attrs in reader.tags]
    assert kinds[kinds.index(("img", "paper")) - 1] == ("button", "opens")
    assert [tag for tag, _ in kinds].count("dialog") == 1
    assert not any(attrs.get("href", "").startswith("data:image") for _, attrs in reader.tags)  # browsers open none


def browse(page, tmp_path, probe, width, scheme=1):
    """What `probe` says on the console of a headless browser, beside everything else that is said there."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    page.write_text(page.read_text() + f"<script>{probe}</script>")
    frame = tmp_path / "frame.html"  # a window cannot be as narrow as a telephone, a frame can
    frame.write_text(
        '<!doctype html><link rel="icon" href="data:,"><body style="margin:0">'
        f'<iframe src="{page.as_uri()}" width="{width}" height="1000" style="border:0"></iframe>'
    )
    picture = tmp_path / "picture.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--v=0"]
    flags += ["--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'user'}"]
    flags += [f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},1000"]
    done = subprocess.run(
        [chromium, *flags, f"--screenshot={picture}", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int.from_bytes(picture.read_bytes()[16:20]) == width  # of the PNG header
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_the_page_renders_without_errors_or_sideways_scrolling(three_seeds, tmp_path, width, scheme):
    three_seeds.save("c", three_seeds.continual())
    three_seeds.save("d", three_seeds.distill())
    page, _ = report(three_seeds)
    probe = "document.querySelector('thead button').click();"
    probe += "console.log('wide', innerWidth, document.documentElement.scrollWidth);"
    said = browse(page, tmp_path, probe, width, scheme)
    assert len(said) == 1, said
    inner, wide = map(int, re.search(r"wide (\d+) (\d+)", said[0]).groups())
    assert inner == width
    assert wide <= inner


@pytest.mark.browser
@pytest.mark.parametrize(("width", "whole"), [(1280, True), (400, False)])
def test_tables_are_whole_or_say_that_they_scroll(real, tmp_path, width, whole):
    page = write_report(real, tmp_path / "out")
    probe = "const all = [...document.querySelectorAll('.scroll')];"
    probe += "const cut = all.filter(box => box.scrollWidth > box.clientWidth + 1);"
    probe += "const hinted = cut.filter(box => getComputedStyle(box.querySelector('caption span'), '::after').content"
    probe += ".includes('scroll'));"
    probe += "console.log('tables', all.length, cut.length, hinted.length);"
    (said,) = browse(page, tmp_path, probe, width)
    total, cut, hinted = map(int, re.search(r"tables (\d+) (\d+) (\d+)", said).groups())
    assert total > 10
    assert (cut == 0) == whole
    assert hinted == cut


@pytest.mark.browser
def test_a_click_shows_a_picture_in_full_size(make, tmp_path):
    folder = make.save("a", make.federated("one_shot"))
    figure = Figure(figsize=(20, 10))
    figure.savefig(folder / "summaries.png", dpi=100)
    page, _ = report(make)
    probe = "const button = document.querySelector('.opens'); const small = button.querySelector('img');"
    probe += "small.loading = 'eager'; small.decode().then(() => { button.click();"
    probe += "const large = document.querySelector('dialog[open] img');"
    probe += "large.decode().then(() => console.log('size', small.clientWidth, large.clientWidth)); });"
    (said,) = browse(page, tmp_path, probe, 1280)
    small, large = map(int, re.search(r"size (\d+) (\d+)", said).groups())
    assert small < 1280
    assert large == 2000
