"""Look at a data set and a model: `python src/show.py data=mnist model=two_conv`."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairsweep.cli.entry import entry_point
from fairsweep.runs import inputs
from fairsweep.training import sources
from fairsweep.wording import printable

if TYPE_CHECKING:
    from fairsweep.training.dataset import Data


@entry_point("show")
def main(cfg: DictConfig) -> None:
    """Print class counts and the model's layers, and write a picture of sample images."""
    inputs.check(cfg)
    output = inputs.picture_file(cfg.output)
    if note := sources.note(cfg.data):
        print(note)

    from torchinfo import summary

    from fairsweep.runs import pictures
    from fairsweep.training import build

    data = build.data(cfg)
    model = build.model(cfg, data.shape, len(data.classes))
    console = Console()
    print(f"{data.name}: images of {' x '.join(map(str, data.shape))}, {len(data.classes)} classes")
    console.print(class_counts(data))
    columns = ["output_size", "num_params", *(["mult_adds"] if console.width >= 96 else [])]
    print(summary(model, (1, *data.shape), col_names=columns, col_width=18, device="cpu", verbose=0))
    pictures.save(pictures.samples(data), output)
    print(f"\npicture  {output}")


def class_counts(data: "Data") -> Table:
    """The number of images per class and split."""
    table = Table("class", show_footer=True)
    table.columns[0].footer = "all"
    columns = []
    for name in ("train", "val", "test"):
        counts = getattr(data, name).targets.bincount(minlength=len(data.classes)).tolist()
        columns.append([f"{count:,}" for count in counts])
        table.add_column(name, f"{sum(counts):,}", justify="right")
    for name, *counts in zip(data.classes, *columns, strict=True):
        table.add_row(Text(printable(name)), *counts)
    return table


if __name__ == "__main__":
    main()
