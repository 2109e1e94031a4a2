"""From records to an answer: load, compare, draw, and write one page.

from fedcl.report import compare, load_runs, write_report

runs, skipped = load_runs("runs")      # folders, sweeps or globs
comparison = compare(runs)             # groups of comparable runs, methods, seeds
page = write_report("runs", "report")  # report/report.html, report/figures/*.svg, report/results.csv
"""

from fedcl.report.compare import Comparison, Group, Method, compare
from fedcl.report.page import write_report
from fedcl.report.records import Point, Run, Skipped, load_runs
from fedcl.report.statements import statements
from fedcl.report.terminal import comparison_markdown, comparison_table

__all__ = [
    "Comparison",
    "Group",
    "Method",
    "Point",
    "Run",
    "Skipped",
    "compare",
    "comparison_markdown",
    "comparison_table",
    "load_runs",
    "statements",
    "write_report",
]
