"""Draw the plots of tests.results as SVG: the same data give the same file."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.results import Plot, fingerprint

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe and Ito
matplotlib.rcParams["svg.hashsalt"] = "results"


def draw(plot: Plot, file: Path) -> None:
    """Write one plot; the file holds the fingerprint of its data."""
    is_bars = plot.kind == "bars"
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    if is_bars:
        _bars(axes, plot)
    else:
        for (name, points), colour in zip(plot.series.items(), _COLOURS, strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, label=name, color=colour, drawstyle="steps-post" if plot.kind == "steps" else "default")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    if len(plot.series) > 1:
        axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, format="svg", metadata={"Date": None, "Description": fingerprint(plot)})


def _bars(axes: Axes, plot: Plot) -> None:
    names = list(dict.fromkeys(str(name) for points in plot.series.values() for name, _ in points))
    height = 0.8 / len(plot.series)
    for number, ((series, points), colour) in enumerate(zip(plot.series.items(), _COLOURS, strict=False)):
        places = [names.index(str(name)) + number * height for name, _ in points]
        axes.barh(places, [value for _, value in points], height, label=series, color=colour)
    axes.set_yticks([place + (len(plot.series) - 1) * height / 2 for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
