"""Overrides of a multirun command that Hydra must not apply before it composes jobs."""

import re
import shlex
import sys

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fairsweep.config import OPEN_GROUPS, redacted

# Groups whose choices have different keys.
GROUPS = ("data", *OPEN_GROUPS)

# `choice` takes no null; this resolves to it.
NULL = "${oc.decode:null}"


def postponed(word: str) -> str:
    """A word of a multirun command, as a list of one value if only some choices may have its key.

    Hydra first composes what the jobs have in common, with the default choices: a key that only a swept
    choice has would be unknown there. Lists wait for the jobs.
    """
    parser = OverridesParser.create()
    try:
        (override,) = parser.parse_overrides([word])
        group, dot, _ = override.key_or_group.partition(".")
        value = override.value()
        is_key = group in GROUPS and override.package is None and (dot != "" or isinstance(value, dict))
        if not is_key or override.is_delete() or override.is_sweep_override():
            return word
        key, _, text = word.partition("=")
        listed = f"{key}=choice({NULL if value is None else text.strip() or repr('')})"
        parser.parse_overrides([listed])
    except HydraException:  # Hydra reports it
        return word
    return listed


def as_typed(word: str) -> str:
    """The inverse of `postponed`. A list of several values becomes the same list in the short form."""
    match = re.fullmatch(rf"(\+*(?:{'|'.join(GROUPS)})(?:\..*?)?)=choice\((.*)\)", word, re.DOTALL)
    return word if match is None else f"{match[1]}={'null' if match[2] == NULL else match[2]}"


# The command line of this process, before any of its words was rewritten.
typed: list[str] = []


def command_line() -> list[str]:
    """The words of the command line as they were typed."""
    return typed or [as_typed(word) for word in sys.argv]


def command() -> str:
    """The command line as it was typed, for a shell, without credentials."""
    return shlex.join(redacted(command_line()))
