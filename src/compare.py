"""Show how far a sweep is, also one in progress: `python src/compare.py`."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from fairsweep.cli import entry_point
from fairsweep.sweeps import board, folder


@entry_point("compare", short={"sweep": "which"})  # conf/sweep/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Find the sweep, and show its arms."""
    board.show(Console(), folder.find(Path(cfg.record.dir).absolute(), str(cfg.which)))


if __name__ == "__main__":
    main()
