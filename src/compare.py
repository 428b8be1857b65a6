"""What a sweep shows, also one in progress, as a report: `python src/compare.py`."""

from omegaconf import DictConfig
from rich.console import Console

from fairsweep.cli.entry import entry_point
from fairsweep.compare import request
from fairsweep.config import ConfigError
from fairsweep.garbage import uncollected
from fairsweep.sweeps import board


@entry_point("compare", short={"sweep": "which"})  # conf/sweep/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Check the request, show the progress of sweeps started here, and write the report."""
    request.check(cfg)
    console, folders = Console(), request.begun_here(cfg)
    for folder in folders:
        board.show(console, folder)

    # Looking for garbage among the millions of objects that modules make takes a third of a report's time.
    with uncollected():
        from fairsweep.compare import report

        try:
            report.make(cfg, folders, console)
        except ConfigError:
            for folder in folders:
                board.show_arms(console, folder)
            raise


if __name__ == "__main__":
    main()
