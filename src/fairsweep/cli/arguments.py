"""The command line as people type it, rewritten as Hydra reads it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from fairsweep.config import DATA_FILES

# Keys whose values are taken as they are: text and paths may contain spaces, quotes, brackets, '=' and '#'.
PATHS = ("data.root", *DATA_FILES, "record.dir")  # recorded as absolute paths
TEXTS = ("filter", "input", "output", *PATHS, "trainer.weights", "tracking.experiment")

ARM_EDIT = re.compile(r"\+*arms\.([^.=]+)\.([^=]+)=(.*)", re.DOTALL)
SQLITE = re.compile(r"(tracking\.uri=sqlite:///)([^/:?][^:?]*)(.*)")


def rewritten(
    words: Sequence[str], short: Mapping[str, str], flags: Sequence[str], is_sweep: bool
) -> list[str]:
    """The words of a command line, options first, each in Hydra's grammar.

    Args:
        short: other names for keys.
        flags: words that alone mean `word=true`.
        is_sweep: a comma separates several paths, unless the text names one.
    """
    overrides = [*get_args_parser().parse_intermixed_args(list(words)).overrides]
    options = without(words, overrides)
    flagged = [f"{word}=true" if word in flags else word for word in overrides]
    return options + [as_text(in_full(word, short), is_sweep) for word in flagged]


def without(words: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The words that are options, or values of options."""
    left, options = list(overrides), []
    for word in words:
        if left and word == left[0]:
            left.pop(0)
        else:
            options.append(word)
    return options


def in_full(word: str, short: Mapping[str, str]) -> str:
    """A word with its key as the configuration has it.

    `arms.sgd.optimizer.lr=0.1,0.01` changes one override of one arm; `~arms.sgd` drops that arm.
    """
    if "arms" in short and (edit := ARM_EDIT.fullmatch(word)):
        name, key, value = edit.groups()
        return f"{short['arms']}={{{name}: {{{key}: {quoted(value, chr(34))}}}}}"
    if "arms" in short and word.startswith("~arms."):
        return f"~{short['arms'].lstrip('+')}{word.removeprefix('~arms')}"
    key, equals, value = word.partition("=")
    name, dot, rest = key.partition(".")
    return f"{short[name]}{dot}{rest}={value}" if equals and name in short else word


def as_text(word: str, is_sweep: bool) -> str:
    """A word of `TEXTS`, quoted for Hydra, its path without `~`; any other word as it is."""
    if match := SQLITE.fullmatch(word):
        return f"{match[1]}{Path(match[2]).absolute()}{match[3]}"
    key, _, value = word.partition("=")
    if key not in TEXTS or value in ("", "null") or value[0] in "'\"":
        return word
    if is_sweep and key in PATHS and "," in value and not Path(value).exists():
        return word
    if value.startswith(("~/", "~\\")) or value == "~":
        value = str(Path(value).expanduser())
    is_path = key in PATHS or (key == "trainer.weights" and Path(value).exists())
    return f"{key}={quoted(str(Path(value).absolute()) if is_path and '${' not in value else value)}"


def quoted(text: str, quote: str = "'") -> str:
    """A text in quotes of Hydra's grammar, where backslashes are doubled before a quote alone."""
    inner = re.sub(rf"(\\*)({quote}|$)", lambda m: m[1] * 2 + (f"\\{quote}" if m[2] else ""), text)
    return f"{quote}{inner}{quote}"
