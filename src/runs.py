"""List sweeps and runs, and free the disk: `python src/runs.py`."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from fairsweep.cli.entry import entry_point
from fairsweep.runs.progress import print_line
from fairsweep.sweeps import cleaning, folder, listing


@entry_point("runs", short={"sweep": "which"}, flags=["clean"])  # conf/sweep/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """List what an output folder holds, the runs of one sweep, or what trains now; or clean a sweep."""
    listing.check(cfg)
    console, outputs = Console(), Path(cfg.record.dir).absolute()
    if cfg.clean:
        cleaning.clean(folder.find(outputs, cfg.which), cfg, lambda text: print_line(console, text))
    elif cfg.running:
        console.print(listing.in_training(outputs))
    elif cfg.which is not None:
        console.print(listing.of_sweep(folder.find(outputs, cfg.which)))
    else:
        console.print(listing.everything(outputs, cfg.limit, console.width))


if __name__ == "__main__":
    main()
