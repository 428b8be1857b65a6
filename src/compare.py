"""What a sweep shows, also one in progress, as a report: `python src/compare.py`."""

import gc

from omegaconf import DictConfig
from rich.console import Console

from fairsweep.cli import entry_point
from fairsweep.compare import request
from fairsweep.config import ConfigError
from fairsweep.sweeps import board


@entry_point("compare", short={"sweep": "which"}, texts=["filter"])  # conf/sweep/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Check what is asked for, show how far a sweep is that was begun here, and make the report."""
    request.check(cfg)
    console, folder = Console(), request.begun_here(cfg)
    if folder is not None:
        board.show(console, folder)
        if why := request.no_report(cfg, folder):
            board.show_arms(console, folder)
            console.print(why, highlight=False, markup=False, soft_wrap=True)
            return

    # Looking for garbage among the millions of objects that MLflow makes takes a third of a report's time.
    gc.disable()
    from fairsweep.compare import report

    try:
        report.make(cfg, request.ids(cfg) if folder is None else [folder.read()["id"]], console)
    except ConfigError:
        if folder is not None:
            board.show_arms(console, folder)
        raise


if __name__ == "__main__":
    main()
