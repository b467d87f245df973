"""The page `docs/reference/performance.md` and its charts, from the figures of a run of the bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loading
import matplotlib as mpl
import merging
import projects
import servers
import upkeep
from measuring import OURS, Figure
from peers import DLT, PYARROW, PYICEBERG

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "cascade",  # the same figures make the same file
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
    }
)
from matplotlib import pyplot as plt  # noqa: E402  # after the settings
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: E402

__all__ = ["write_page"]

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_PAGE = _DOCS / "reference" / "performance.md"
# One colour and one mark for each way of working, told apart without colours too.
_LOOKS = {
    OURS: ("#0b6e99", "o", "-"),
    PYARROW: ("#555555", "s", "--"),
    PYICEBERG: ("#d1731c", "^", "-."),
    DLT: ("#7a4fa3", "D", ":"),
    projects.DAGSTER: ("#555555", "s", "--"),
    servers.ON_SERVERS: ("#0b6e99", "*", "-"),
}


@dataclass(frozen=True)
class Panel:
    """One chart: how something grows.

    Attributes:
        title: What is done.
        name: The case.
        x: What grows to the right.
        value: `cpu` or `memory`.
        unit: Of the value, as the axis says it.
        scale: The value is multiplied by it.
        far: Whether the axis to the right is logarithmic.
        high: Whether the axis upward is; else it begins at zero, so that what is flat looks flat.
    """

    title: str
    name: str
    x: str
    value: str = "cpu"
    unit: str = "CPU-seconds"
    scale: float = 1.0
    far: bool = True
    high: bool = True


_MS: dict[str, Any] = {"unit": "CPU-ms", "scale": 1000.0, "high": False}
_MEMORY: dict[str, Any] = {"value": "memory", "unit": "MB", "high": False}
#: The charts, by the name of the file, with what the page says above it.
_CHARTS: dict[str, tuple[str, str, tuple[Panel, ...]]] = {
    "rows": (
        "Rows",
        "First loads of ten columns. Ours checks each row against a contract, leaves duplicates out, adds checksums "
        "and commits; bare PyArrow only writes Parquet files. PyIceberg and dlt work by their defaults, without a "
        "contract and a key. Parallel lines mean: the same factor at every size.",
        (
            Panel("Pages of dicts", loading.DICTS, "rows"),
            Panel("Arrow batches", loading.ARROW, "rows"),
            Panel("Pages of JSON", loading.JSON, "rows"),
        ),
    ),
    "memory": (
        "Memory",
        "Peak of the whole process, Python and the imported libraries included. It is bounded by the batch where the "
        "line is flat. Pandas and hypothesis are imported where they are installed, as here; a project has them only "
        "when it adds them. Without, measured apart, a million dicts take 315 MB, ten million rows of Arrow 385.",
        (
            Panel("Pages of dicts", loading.DICTS, "rows", **_MEMORY),
            Panel("Arrow batches", loading.ARROW, "rows", **_MEMORY),
            Panel("Keys in every file merged", merging.EVERYWHERE, "rows of the table", **_MEMORY),
        ),
    ),
    "table-size": (
        "Size of the table",
        "A merge by key copies the files that hold a row which changes, or marks such rows where it would copy "
        "many files. The bare path copies them with PyArrow and knows beforehand which they are.",
        (
            Panel("10,000 rows of one day", merging.ONE_DAY, "rows of the table", high=False),
            Panel("100,000 keys, in every file", merging.EVERYWHERE, "rows of the table"),
            Panel("A partition loaded again", loading.AGAIN, "rows of the partition"),
        ),
    ),
    "tables": (
        "Number of tables",
        "Whole commands, start of Python and all imports included; the promotion without them.",
        (
            Panel("Definitions", projects.DEFINITIONS, "tables", high=False),
            Panel("cascade run --select of one", projects.ONE, "tables", high=False),
            Panel("Gate and promotion of one", projects.PROMOTE, "tables", **_MS),
        ),
    ),
    "history": (
        "Length of the history",
        "A commit after so many others, with the tidying that is part of it; and the gate after so many runs, one an "
        "hour.",
        (
            Panel("An append of 100 rows", upkeep.APPEND, "commits before", far=False, **_MS),
            Panel("A merge of 100 rows", upkeep.MERGE, "commits before", far=False, **_MS),
            Panel("Gate: a check that has not run", projects.GATE, "runs before", **_MS),
        ),
    ),
    "upkeep": (
        "Small files, many partitions, many days",
        "Compaction beside reading and writing the same rows with PyArrow; what Dagster costs for ten assets that do "
        "nothing, with our storage and with its own; and the example of the tutorial, imports taken out.",
        (
            Panel("Small files made large", upkeep.COMPACT, "files of 1,000 rows"),
            Panel("Partitions in one run", projects.PARTITIONS, "partitions of 10 assets"),
            Panel("The example's backfill", projects.EXAMPLE, "days", far=False, high=False),
        ),
    ),
}


def write_page(kept: dict[str, Any]) -> None:
    """Write the page and its charts.

    Args:
        kept: What `bench.py --json` has written.
    """
    figures = [Figure(**each) for each in kept["figures"]]
    text = [_head(kept)]
    for file, (title, says, panels) in _CHARTS.items():
        picture = f"performance-{file}.svg"
        _draw(_DOCS / "images" / picture, panels, figures)
        text.append(f"## {title}\n\n{says}\n\n![{title}](../images/{picture})\n")
    text.append(_table(figures))
    text.append("## Where to go next\n\n- [A commit costs the same on day 1,000](../decisions/flat-cost.md)\n")
    text[-1] += "- [Contributing](../../CONTRIBUTING.md): how to measure it yourself\n"
    _PAGE.write_text("\n".join(text), "utf-8")


def _head(kept: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    return f"""<!-- Written by `nox -s bench -- --page FILE`; do not edit. -->
# Performance

What work costs, and how the cost grows, beside bare PyArrow, PyIceberg, dlt's own loading and plain Dagster. Each
figure is from a process of its own. CPU-seconds are user and system time, children included; imports and the making
of the rows are taken out, where nothing else is said. Times on the clock are not shown: they say more about what else
a machine did.

Measured on {kept["date"]}, on a virtual machine with {kept["machine"]}, shared with other work: ratios are to be
trusted more than single figures, which may be a third too high. Python {kept["python"]}, {versions}.
`python3 -m nox -s bench -- --json FILE` measures, `-- --page FILE` writes this page. Cases may be of several runs,
and of commits of some hours: the file keeps those that were not measured again.
"""


def _draw(file: Path, panels: Sequence[Panel], figures: Sequence[Figure]) -> None:
    drawing, axes = plt.subplots(1, len(panels), figsize=(4.1 * len(panels), 3.4), layout="constrained")
    known: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=True):
        of_panel = [figure for figure in figures if figure.name == panel.name]
        for who, (colour, mark, line) in _LOOKS.items():
            points = sorted((f.at, getattr(f, panel.value) * panel.scale) for f in of_panel if f.who == who)
            if points:
                at, value = zip(*points, strict=True)
                known[who] = axis.plot(at, value, color=colour, marker=mark, linestyle=line, markersize=5)[0]
        for side, logarithmic in ((axis.xaxis, panel.far), (axis.yaxis, panel.high)):
            if logarithmic:
                (axis.set_xscale if side is axis.xaxis else axis.set_yscale)("log")
                side.set_major_locator(LogLocator(subs=(1, 3) if side is axis.xaxis else (1, 2, 5)))
                side.set_minor_formatter(NullFormatter())
            side.set_major_formatter(FuncFormatter(_short))
        if not panel.high:
            axis.set_ylim(0, max((value for line in axis.lines for value in line.get_ydata()), default=1) * 1.2)
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.unit)
    drawing.legend(known.values(), known.keys(), loc="outside lower center", ncols=len(known), frameon=False)
    drawing.savefig(file, metadata={"Date": None})
    plt.close(drawing)


def _short(number: float, _: object = None) -> str:
    """Return a number as an axis shows it."""
    if number >= 1_000_000:
        return f"{number / 1_000_000:g} M"
    return f"{number / 1000:g} k" if number >= 10_000 else f"{number:,g}"


def _table(figures: Sequence[Figure]) -> str:
    """Return the largest size of each case as a table."""
    lines = ["## All figures", "", "| work | way | CPU-seconds | beside | MB |", "|---|---|--:|--:|--:|"]
    for name in dict.fromkeys(figure.name for figure in figures):
        alike = [figure for figure in figures if figure.name == name]
        for figure in alike:
            bare = [f.cpu for f in alike if (f.at, f.who) == (figure.at, figure.bare) and f.cpu]
            beside = f"{figure.cpu / bare[0]:.2f}" if bare else ""
            what = f"{name}, {figure.at:,} {figure.axis}"
            lines.append(f"| {what} | {figure.who} | {_digits(figure.cpu)} | {beside} | {figure.memory:.0f} |")
    return "\n".join([*lines, "", "Beside: as a multiple of the bare path of the same size.", ""])


def _digits(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.1f}"
