"""What the benchmarks share: where MNIST is, what machine this is, tables, and rounds of measurements."""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))  # works in a checkout that is not installed, too

Result = dict[str, Any]  # what one measurement found

MLP = "data=mnist model=mlp model.widths=[64,128,64] model.norm=batch optimizer=adam trainer.batch_size=128"


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring, with the options that all have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("FAIRSWEEP_DATA", ROOT.parent / "shared" / "data"))
    made.add_argument(
        "--data",
        type=data_folder,
        default=str(default),
        metavar="DIR",
        help="folder that holds MNIST/raw/ with the four unpacked files (default: %(default)s)",
    )
    return made


def data_folder(text: str) -> Path:
    if not (Path(text) / "MNIST" / "raw").is_dir():
        raise argparse.ArgumentTypeError(f"no MNIST/raw/ in {text}")
    return Path(text).absolute()


def names_of(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """The argparse type of a comma-separated list of these names."""

    def names(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} not in {', '.join(allowed)}")
        return text.split(",")

    return names


def compose(*overrides: str) -> DictConfig:
    """The configuration that `python src/train.py <overrides>` would train."""
    from hydra import compose, initialize_config_dir

    import fairsweep.config  # noqa: F401  registers the resolver that the configuration uses

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))


def overrides(case: str, images: int, data: object) -> list[str]:
    """What composes a case of speed.py: a recipe's name, or `mlp`."""
    chosen = MLP.split() if case == "mlp" else [f"recipe={case}"]
    return [*chosen, f"data.root={data}", "data.val_size=0", f"data.limit={images}", "trainer.device=cpu"]


def child(script: str, *arguments: object) -> Result:
    """Run a script of this folder in a process of its own; the JSON object that it prints last."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def alternate(sides: Mapping[str, Callable[[int], Result]], rounds: int) -> dict[str, list[Result]]:
    """Call the sides in turn, A B A B: what slows the machine for a while hits all of them."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            print(f"round {number + 1}/{rounds}: {name}", file=sys.stderr, flush=True)
            results[name].append(side(number))
    return results


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the range in brackets where there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine() -> str:
    """CPU model and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'unknown CPU'}, {os.cpu_count()} cores"


def heading() -> str:
    """Machine, how busy it is, date and commit; print it before measuring."""
    git = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True,
        text=True,
        check=False,
    )
    commit = git.stdout.strip() or "unknown"
    load = os.getloadavg()[0]
    return f"{machine()}; load before {load:.1f}; {datetime.date.today()}; commit {commit}"
