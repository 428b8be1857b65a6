"""The same figures as pictures, by matplotlib."""

import io
import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator, PercentFormatter

from fairsweep.compare.figures import Axis, Figure, Layer, Parallel, Style, widest
from fairsweep.look import INK, LOOK

WIDTH = 10.5
STYLE: Any = LOOK | {
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # to have it found takes a quarter of all the time
    "figure.dpi": 120,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "fairsweep",  # the same figure is the same file
}
BEHIND: Any = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1}

# By Plotly's names of symbols.
MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "pentagon": "p",
    "star": "*", "x": "x", "line-ns": "|",
}  # fmt: skip


@matplotlib.rc_context(STYLE)
def pictures(figure: Figure) -> dict[str, bytes]:
    """A figure's files, by their ending: `png` and `svg`."""
    canvas = draw(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    canvas.savefig(png, format="png", pil_kwargs={"compress_level": 1})  # the default takes longer
    canvas.savefig(svg, format="svg", metadata={"Date": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}


def draw(figure: Figure) -> Canvas:
    width, height = WIDTH, figure.height / 92 + 0.3
    canvas = Canvas(figsize=(width, height))
    canvas.text(0.1 / width, 1 - 0.1 / height, figure.title, va="top", color=INK, fontsize=12)
    if figure.parallel is not None:
        parallel(canvas.add_axes((0.01, 0.03, 0.98, 0.8)), figure.parallel, figure.styles)
        return canvas
    columns = min(2, len(figure.panels))
    # Matplotlib could lay this out by itself, in as much time as all the rest takes.
    left, between = (margin(figure, column) for column in (0, 1))
    size = (width - left - between * (columns - 1) - 0.15) / columns
    lines = max(name.count("\n") + 1 for panel in figure.panels for name in (panel.x.ticks or ((), [""]))[1])
    top = 0.75 if any(panel.title for panel in figure.panels) else 0.5
    place_of = {
        "left": left / width,
        "right": 1 - 0.15 / width,
        "top": 1 - top / height,
        "bottom": (0.35 + 0.15 * lines) / height,
    }
    rows = math.ceil(len(figure.panels) / columns)
    grid = canvas.add_gridspec(rows, columns, wspace=between / size, hspace=0.25, **place_of)
    named: dict[str, Any] = {}
    for place, panel in enumerate(figure.panels):
        cell = grid[place // columns, place % columns]
        if panel.strip:
            parts = cell.subgridspec(2, 1, height_ratios=(9, 1), hspace=0.06)
            axes = canvas.add_subplot(parts[0])
            lowest = canvas.add_subplot(parts[1], sharex=axes)
            lowest.set_yticks([0], ["diverged"])
            lowest.set_ylim(-1, 1)
            lowest.grid(False)
            axes.tick_params(labelbottom=False)
        else:
            axes = lowest = canvas.add_subplot(cell)
        for layer, on in [*((x, axes) for x in panel.layers), *((x, lowest) for x in panel.strip)]:
            made = add(on, layer, figure.styles.get(layer.arm, Style()), panel.sideways)
            if layer.named:
                named.setdefault(layer.arm, made)
        scale(axes, panel.x, "x")
        scale(axes, panel.y, "y")
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y.label)
        lowest.set_xlabel(panel.x.label)
    if named:
        in_a_row = len(named) if sum(map(len, named)) < 90 else 1
        canvas.legend(named.values(), named.keys(), loc="upper right", ncols=in_a_row, borderaxespad=0.2)
    return canvas


def margin(figure: Figure, column: int) -> float:
    """Inches to the left of a column of panels, for the names on its y axis."""
    names = [name for panel in figure.panels[column::2] if panel.y.ticks for name in panel.y.ticks[1]]
    return max(0.75, 0.2 + 0.07 * widest(names))


def add(axes: Axes, layer: Layer, style: Style, sideways: bool) -> Any:
    """Draw a layer; what stands for it in a legend."""
    look: Any = {"color": style.color, "alpha": layer.opacity}
    symbol = layer.symbol or style.symbol
    mark: Any = {"marker": MARKERS[symbol.removesuffix("-open")], "ms": 0.7 * layer.size}
    mark |= {"mfc": "none"} if symbol.endswith("-open") else {}
    mark |= {"mew": 1.5 if symbol in ("x", "line-ns") or symbol.endswith("-open") else 0}
    width = 0.8 * layer.width
    if layer.kind == "band":
        return axes.fill_between(np.asarray(layer.x, float), layer.y, layer.high, lw=0, **look)
    if layer.kind == "points":
        return axes.plot(layer.x, layer.y, ls="", **look, **mark)[0]
    if layer.kind == "steps":
        return axes.step(layer.x, layer.y, where="post", lw=width, **look)[0]
    if layer.kind == "line":
        dash = ":" if layer.dashed else "-"
        return axes.plot(layer.x, layer.y, ls=dash, lw=width, solid_capstyle="butt", **look)[0]
    at = np.asarray(layer.x if sideways else layer.y, float)
    ends = np.nan_to_num(np.stack([at - layer.low, np.asarray(layer.high, float) - at]))
    bars: Any = {"xerr" if sideways else "yerr": ends}
    return axes.errorbar(
        layer.x, layer.y, **bars, **look, **mark, capsize=3, capthick=width, lw=0, elinewidth=width
    )


def scale(axes: Axes, about: Axis, which: str) -> None:
    """Kind, ticks and range of an axis."""
    along = axes.xaxis if which == "x" else axes.yaxis
    if about.log:
        axes.set(**{f"{which}scale": "log"})
        along.set_minor_locator(NullLocator())
    if about.percent:
        along.set_major_formatter(PercentFormatter(1))
    if about.ticks is not None:
        along.set_ticks(list(about.ticks[0]), list(about.ticks[1]))
    if about.range is not None:
        axes.set(**{f"{which}lim": about.range})


def parallel(axes: Axes, lines: Parallel, styles: dict[str, Style]) -> None:
    """Each column from 0 to 1, and its ticks beside it."""
    heights = []
    for place, (about, name) in enumerate(zip(lines.axes, lines.values, strict=True)):
        column = lines.values[name].to_numpy()
        marks, names = about.ticks or ((), ())
        low, high = about.range or (min(*marks, *column), max(*marks, *column))
        heights.append((column - low) / (high - low or 1))
        axes.axvline(place, color="#999999", lw=1)
        for mark, text in zip(marks, names, strict=True):
            height = (mark - low) / (high - low or 1)
            axes.text(place + 0.02, height, text, fontsize=8, color=INK, va="center", bbox=BEHIND)
    ways = [np.column_stack([range(len(row)), row]) for row in np.stack(heights, axis=1)]
    colors = [styles[arm].color for arm in lines.arms]
    axes.add_collection(LineCollection(ways, colors=colors, lw=0.8, alpha=0.5, zorder=0))
    axes.set_xticks(range(len(lines.axes)), [about.label for about in lines.axes])
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlim=(-0.1, len(lines.axes) - 0.75), ylim=(-0.05, 1.05))
