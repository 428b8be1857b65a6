"""The look of what people see: tables on the terminal, and pictures."""

from typing import Any

from rich.table import Table

INK = "#222222"

# For `matplotlib.rc_context`.
LOOK: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#999999",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a file's or a class's name is a dollar
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def plain_table(*names: str, header: str = "bold") -> Table:
    """An empty table with these columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=header)
    for name in names:
        table.add_column(name, overflow="fold")
    return table
