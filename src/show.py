"""Look at a data set and a model: `python src/show.py data=mnist model=two_conv`."""

from omegaconf import DictConfig
from rich.console import Console

from fairsweep.cli.entry import entry_point
from fairsweep.runs import inputs
from fairsweep.training import sources


@entry_point("show")
def main(cfg: DictConfig) -> None:
    """Print what is in the data and the model's layers, and write a picture of sample images."""
    inputs.check(cfg)
    output = inputs.picture_file(cfg.output)
    if note := sources.note(cfg.data):
        print(note)

    from torchinfo import summary

    from fairsweep.runs import contents, pictures
    from fairsweep.training import build

    data = build.data(cfg)
    model = build.model(cfg, data.shape, data.outputs)
    console = Console()
    print(contents.headline(data), *data.notes, sep="\n")
    for table in contents.tables(data):
        console.print(table)
    columns = ["output_size", "num_params", *(["mult_adds"] if console.width >= 96 else [])]
    print(summary(model, (1, *data.shape), col_names=columns, col_width=18, device="cpu", verbose=0))
    if len(data.shape) == 3:
        pictures.save(pictures.samples(data), output)
        print(f"\npicture  {output}")


if __name__ == "__main__":
    main()
