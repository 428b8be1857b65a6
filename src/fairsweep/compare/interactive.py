"""Figures as Plotly's JSON, for a page, whose style gives the text its colour."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import escape

from fairsweep.compare.figures import Axis, Figure, Layer, Style, widest

CLEAR = "rgba(0,0,0,0)"
GRID = "rgba(128,128,128,0.22)"

# Shares of a figure between its panels, and of a panel for the row of the diverged.
GAP_X, GAP_Y, STRIP = 0.09, 0.16, 0.1


def plot(figure: Figure, places: Mapping[str, int]) -> dict[str, Any]:
    """`data` and `layout` for `Plotly.newPlot`, and `narrow`, the layout with the panels below each other.

    Args:
        places: where each MLflow run stands in the page's list of runs; points carry that as `customdata`.
    """
    if figure.parallel is not None:
        return parallel(figure)
    return {
        "data": traces(figure, places),
        "layout": layout_of(figure, min(2, len(figure.panels))),
        "narrow": layout_of(figure, 1),
    }


def traces(figure: Figure, places: Mapping[str, int]) -> list[dict[str, Any]]:
    """All layers of a figure; one of each arm is in the legend."""
    data, named = [], set[str]()
    for place, panel in enumerate(figure.panels):
        x, y, strip = names_of(place)
        on_axes = [(layer, y) for layer in panel.layers] + [(layer, strip) for layer in panel.strip]
        for layer, on in on_axes:
            style = figure.styles.get(layer.arm, Style())
            made = trace(layer, style, panel.sideways, places) | {"xaxis": x, "yaxis": on}
            if layer.named and layer.arm not in named:
                named.add(layer.arm)
                made |= {"name": as_html(layer.arm, bold=False), "showlegend": True}
            data.append(made)
    return data


def names_of(place: int) -> tuple[str, str, str]:
    """The names of a panel's axes: x, y, and y of its strip."""
    number = 2 * place + 1
    return name("x", number), name("y", number), name("y", number + 1)


def layout_of(figure: Figure, columns: int) -> dict[str, Any]:
    """The layout with this many panels side by side."""
    rows = math.ceil(len(figure.panels) / columns)
    titled = any(panel.title for panel in figure.panels)
    layout: dict[str, Any] = {
        "height": figure.height * rows // math.ceil(len(figure.panels) / 2),
        "margin": {"l": 64, "r": 16, "t": 60 if titled else 36, "b": 48},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "x": 0,
            "xanchor": "left",
        },
        "modebar": {"bgcolor": CLEAR, "color": "rgba(128,128,128,0.5)", "activecolor": "#888888"},
        "annotations": [],
    }
    names = [text for panel in figure.panels[1::2] if panel.y.ticks for text in panel.y.ticks[1]]
    gap = GAP_X + max(0.0, 0.006 * (widest(names) - 8))
    for place, panel in enumerate(figure.panels):
        left, right = part(place % columns, columns, gap)
        bottom, top = part(rows - 1 - place // columns, rows, GAP_Y)
        height = STRIP * (top - bottom) if panel.strip else 0.0
        x, y, strip = names_of(place)
        layout[key(x)] = axis(panel.x) | {"domain": [left, right], "anchor": strip if panel.strip else y}
        layout[key(y)] = axis(panel.y) | {"domain": [bottom + 1.2 * height, top], "anchor": x}
        if panel.strip:
            ticks = Axis(ticks=([0], ["diverged"]), range=(-1, 1))
            layout[key(strip)] = axis(ticks) | {"domain": [bottom, bottom + height], "anchor": x}
            layout[key(strip)] |= {"showgrid": False, "fixedrange": True}
        if panel.title:
            text = {"text": f"<b>{panel.title}</b>", "showarrow": False, "xref": "paper", "yref": "paper"}
            text |= {"x": left, "y": top, "xanchor": "left", "yanchor": "bottom", "yshift": 6}
            layout["annotations"].append(text)
    return layout


def name(axis: str, number: int) -> str:
    """What Plotly calls an axis in a trace: x, x2, x3."""
    return axis if number == 1 else f"{axis}{number}"


def key(name: str) -> str:
    """What Plotly calls the same axis in a layout: xaxis, xaxis2."""
    return f"{name[0]}axis{name[1:]}"


def part(place: int, count: int, gap: float) -> tuple[float, float]:
    """Where one of several panels side by side begins and ends."""
    size = (1 - gap * (count - 1)) / count
    return place * (size + gap), place * (size + gap) + size


def axis(about: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {
        "title": {"text": as_html(about.label, bold=False), "standoff": 8, "font": {"size": 12.5}},
        "type": "log" if about.log else "linear",
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
    }
    if about.percent:
        made |= {"tickformat": ".3~%"}
    if about.ticks is not None:
        made |= {
            "tickmode": "array",
            "tickvals": list(about.ticks[0]),
            "ticktext": [as_html(text, bold=False) for text in about.ticks[1]],
        }
    if about.range is not None:
        made["range"] = [math.log10(end) for end in about.range] if about.log else list(about.range)
    return made


def trace(layer: Layer, style: Style, sideways: bool, places: Mapping[str, int]) -> dict[str, Any]:
    """A layer as one of Plotly's traces."""
    x, y, color, symbol = plain(layer.x), plain(layer.y), style.color, layer.symbol or style.symbol
    symbol = "x-thin" if symbol == "x" else symbol
    made: dict[str, Any] = {"type": "scatter", "x": x, "y": y, "opacity": layer.opacity, "showlegend": False}
    made |= {"legendgroup": layer.arm} if layer.arm else {}
    made |= {"hovertemplate": "%{text}<extra></extra>"} if layer.texts else {"hoverinfo": "skip"}
    made |= {"text": [as_html(text) for text in layer.texts]} if layer.texts else {}
    made |= {"customdata": [places.get(run or "") for run in layer.runs]} if layer.runs else {}
    if layer.kind == "band":
        ring = {"x": x + x[::-1], "y": y + plain(layer.high)[::-1]}
        return made | ring | {"mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": color}
    if layer.kind in ("points", "interval"):
        made |= {"mode": "markers", "marker": {"symbol": symbol, "size": layer.size, "color": color}}
        if symbol in ("x-thin", "line-ns") or symbol.endswith("-open"):
            made["marker"]["line"] = {"width": 2, "color": color}
    if layer.kind == "interval":
        at = layer.x if sideways else layer.y
        made["error_x" if sideways else "error_y"] = {
            "symmetric": False,
            "array": plain(high - a for high, a in zip(layer.high, at, strict=True)),
            "arrayminus": plain(a - low for low, a in zip(layer.low, at, strict=True)),
            "color": color,
            "thickness": layer.width,
            "width": 7,
        }
    if layer.kind in ("line", "steps"):
        dash, shape = "dot" if layer.dashed else "solid", "hv" if layer.kind == "steps" else "linear"
        line = {"color": color, "width": layer.width, "dash": dash, "shape": shape}
        made |= {"mode": "lines", "line": line}
    return made


def as_html(text: str, bold: bool = True) -> str:
    """A text for Plotly, which takes some HTML: no name is any; the first line is bold."""
    first, *rest = str(escape(text)).split("\n")
    return "<br>".join([f"<b>{first}</b>" if bold and first else first, *rest])


def plain(values: Iterable[Any]) -> list[float | None]:
    """Numbers for JSON, which has no NaN, with seven digits."""
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values]


def parallel(figure: Figure) -> dict[str, Any]:
    lines = figure.parallel
    assert lines is not None
    arms = list(dict.fromkeys(lines.arms))
    dimensions = []
    for about, column in zip(lines.axes, lines.values, strict=True):
        assert about.ticks is not None
        ticks = {"tickvals": list(about.ticks[0]), "ticktext": list(about.ticks[1])}
        values = lines.values[column]
        reach = about.range or (min(*about.ticks[0], *values), max(*about.ticks[0], *values))
        dimensions.append({"label": about.label, "values": plain(values), "range": plain(reach), **ticks})
    colors = [figure.styles[arm].color for arm in arms]
    scale = [[place / max(1, len(arms) - 1), color] for place, color in enumerate(colors)]
    drawn = {
        "type": "parcoords",
        "dimensions": dimensions,
        "customdata": lines.rows,
        "labelfont": {"size": 12.5},
        "tickfont": {"size": 12},
        "line": {
            "color": [arms.index(arm) for arm in lines.arms],
            "colorscale": scale if len(scale) > 1 else [[0, colors[0]], [1, colors[0]]],
            "cmin": 0,
            "cmax": max(1, len(arms) - 1),
        },
        "unselected": {"line": {"opacity": 0.06}},
    }
    margin = {"l": min(400, max(70, 7 * widest(arms))), "r": 90, "t": 48, "b": 20}
    layout = {"height": figure.height, "margin": margin, "paper_bgcolor": CLEAR}
    return {"data": [drawn], "layout": layout, "narrow": layout}
