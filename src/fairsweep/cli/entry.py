"""Hydra's entry point with the errors of a good command-line tool: one line, and an exit status."""

import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from fairsweep import signals
from fairsweep.cli import arguments, output, overrides
from fairsweep.cli.environment import complete_environment, with_variables
from fairsweep.cli.overrides import postponed
from fairsweep.config import ROOT, TARGET_GROUPS, ConfigError, nearest, redacted, unknown, without_credentials
from fairsweep.sweeper import SHORT
from fairsweep.wording import printable

# How Hydra begins its error for a comma in one of those.
SWEPT_SETTING = "Sweeping over Hydra's configuration is not supported :"

# What else only a sweep has.
SWEEP_PARTS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher.", "hydra.sweeper.")
PRESETS = "sweep"


def is_for_sweeps(word: str) -> bool:
    """Whether a word of the command line means nothing to a single run."""
    key = word.partition("=")[0].lstrip("+~")
    return key.partition(".")[0] in SHORT or key.partition("@")[0] == PRESETS or key.startswith(SWEEP_PARTS)


def explain(error: BaseException, short: Mapping[str, str] = MappingProxyType({})) -> str:
    """One line for the user out of an error of Hydra's, of OmegaConf's or of ours.

    Args:
        short: other names for keys on the command line, as in `Command`.
    """
    if isinstance(error, ConfigError):
        return str(error)
    cause = error.__cause__
    if isinstance(error, InstantiationException) and isinstance(cause, ConfigError):
        return str(cause)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        known = cause.parent_node.keys() if isinstance(cause.parent_node, DictConfig) else []
        names = {full: name for name, full in short.items()}
        key = str(cause.full_key)
        text = unknown(key, (names.get(one, one) for one in map(str, known)))
        if key.count(".") == 1 and key.partition(".")[0] in TARGET_GROUPS:
            text += f"; an argument of its own is added with a plus sign: +{key}=..."
        return text
    if isinstance(cause, ValidationError) and str(error).startswith("Error merging override "):
        given = " ".join(str(error).removeprefix("Error merging override ").split())
        return f"{given.lstrip('+')}: not allowed: {str(cause).splitlines()[0]}"
    if isinstance(error, MissingConfigException):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if not group.startswith("hydra/"):  # a choice may be a path
            group, _, choice = str(error.missing_cfg_file).partition("/")
        if choice.endswith(".py"):
            name = choice.removesuffix(".py").strip("./").replace("/", ".")
            return f"{group}={choice}: is a file; write {group}=other {group}._target_={name}.<class>"
        if choice == "submitit_slurm":
            return "hydra/launcher=slurm: submitit is not installed; pip install 'fairsweep[slurm]'"
        if error.options:
            options = sorted(option for option in error.options if not option.startswith("_"))
            allowed = ", ".join(options)
            return f"{group}={choice}: no such choice{nearest(choice, options)} (allowed: {allowed})"
    if isinstance(error, OverrideParseException):
        reason = next(line for line in str(error).splitlines() if not line.startswith("Error parsing"))
        override = redacted(error.override)
        if override.endswith(","):
            return f"{override}: ends with a comma; remove the space after it, or quote the whole word"
        return f"{override}: cannot be read ({reason}); must be key=value, special text in quotes"
    text = " ".join(str(error).split())
    if match := re.match(r"Could not delete from config. 'hydra\.sweeper\.arms\.(\S+)' does not exist", text):
        return f"~arms.{match[1]}: no such arm; dry_run=true lists the arms"
    if text.startswith(SWEPT_SETTING):
        setting = text.removeprefix(SWEPT_SETTING).strip(" '").removeprefix("hydra.sweeper.")
        key, _, values = setting.partition("=")
        return f"{setting}: a setting of the sweep cannot be swept; a list has brackets: '{key}=[{values}]'"
    if is_wrong_choice(error):
        return f"{' '.join(misfits(sys.argv[1:]))}: must be group=choice, a file in conf/<group>/ ({text})"
    return f"{text} ({' '.join(str(cause).split())})" if isinstance(cause, OmegaConfBaseException) else text


def is_wrong_choice(error: BaseException) -> bool:
    """Hydra raises a plain ValueError for a choice that is not text."""
    return isinstance(error, ValueError) and str(error).startswith("Config group override must be")


def misfits(words: list[str]) -> Iterator[str]:
    """The words of a command line that give a group a choice that is not text: `trainer=1`, `=3`."""
    for word in words:
        group, equals, choice = word.lstrip("+").partition("=")
        folder = ROOT / "conf" / group
        if equals and folder.is_dir() and not (folder / f"{choice}.yaml").exists():
            yield word


@contextmanager
def without_private_choices() -> Iterator[None]:
    """Inside, what is printed omits choices such as `_common`, which other choices build on."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            yield
    finally:
        print(re.sub(r"(?<=[ :])_\w+, ", "", text.getvalue()), end="")


def show_traceback(error: BaseException) -> NoReturn:
    """End as Python does after an error that nobody has caught; but no part of it shows a password."""
    print(without_credentials("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    sys.exit(1)


def unread() -> NoReturn:
    """Whoever read the output has gone, as `head` does: as rich has it, no error to tell."""
    # Python must not try to flush what is left.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def entry_point(
    config_name: str,
    short: Mapping[str, str] = MappingProxyType({}),
    flags: Sequence[str] = (),
    expand: Callable[[list[str]], list[str]] = list,
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a configuration a command; see `Command`."""
    return lambda task: Command(task, config_name, short, flags, expand).main


@dataclass(frozen=True)
class Command:
    """Composes `conf/<config_name>.yaml` and the command line, calls the task, and tells errors in one line.

    Exit status: 2 for a mistake in the configuration or a file that cannot be read or written, 130 after
    Ctrl-C, else what the task says by `sys.exit`. HYDRA_FULL_ERROR=1 shows tracebacks.

    Attributes:
        short: other names for keys on the command line.
        flags: words that alone mean `word=true`.
        expand: rewrites the words of the command line first.
    """

    task: Callable[[DictConfig], Any]
    config_name: str
    short: Mapping[str, str]
    flags: Sequence[str]
    expand: Callable[[list[str]], list[str]]
    wants_traceback: bool = field(default_factory=lambda: os.environ.get("HYDRA_FULL_ERROR") == "1")

    def main(self) -> None:
        # Of a run or a sweep, what is printed is only a view; of the others it is what they are for.
        streams = ("stdout", "stderr") if self.config_name == "train" else ("stderr",)
        with output.unfailing(*streams), signals.handled():
            try:
                self.answer()
                signals.check()
            except BaseException as error:  # a signal may have become any of them
                if signals.received() or isinstance(error, KeyboardInterrupt):
                    if not (isinstance(error, SystemExit) and error.code == 130):  # already reported
                        print("interrupted", file=sys.stderr)
                    sys.exit(130)
                if isinstance(error, SystemExit):
                    raise
                show_traceback(error)

    def answer(self) -> None:
        """Compose and call the task, or show what an option of Hydra's asks for."""
        complete_environment()
        # With this, Hydra raises its errors instead of printing them.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        try:
            shows_help = self.rewrite()
            compose = hydra.main(
                version_base="1.3", config_path=str(ROOT / "conf"), config_name=self.config_name
            )
            with without_private_choices() if shows_help else nullcontext():
                compose(self.job)()
        except BrokenPipeError:
            unread()
        except (ConfigError, HydraException, OmegaConfBaseException, OSError) as error:
            self.fail(error)
        except ValueError as error:  # of Hydra's
            if not (is_wrong_choice(error) or str(error).startswith("Only one of --")):
                raise
            self.fail(error)

    def rewrite(self) -> bool:
        """Put the words of the command line as Hydra reads them; whether they ask for help.

        Raises:
            ConfigError: a word does not go with the others.
        """
        args = get_args_parser().parse_intermixed_args(sys.argv[1:])
        multirun = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
        if multirun and self.config_name != "train":
            raise ConfigError("-m: only src/train.py sweeps; omit it")
        only_shows = args.cfg or args.info or args.help or args.hydra_help or args.shell_completion
        if self.config_name == "train" and not (multirun or only_shows):
            for word in filter(is_for_sweeps, args.overrides):
                raise ConfigError(f"{word}: configures a sweep; add -m")
        names = {**self.short, **(SHORT if multirun else {})}
        words = arguments.rewritten(self.expand(sys.argv[1:]), names, self.flags, multirun)
        overrides.typed[:] = sys.argv
        sys.argv[1:] = [postponed(word) if multirun else word for word in words]
        return bool(args.help)

    def job(self, cfg: DictConfig) -> Any:
        """The task, as Hydra calls it."""
        signals.check()
        try:
            return self.task(cfg)
        except BrokenPipeError:
            unread()
        except (ConfigError, OSError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # it is the job that has failed, not the sweep
            self.fail(error)

    def fail(self, error: Exception) -> NoReturn:
        """End with an error in one line."""
        if self.wants_traceback:
            show_traceback(error)
        text = with_variables(explain(error, self.short))
        print(f"error: {printable(without_credentials(text))}", file=sys.stderr)
        sys.exit(2)
