"""Overrides of a sweep, and what several on one key mean: the same as without a sweep, or an error."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from hydra.core.override_parser.types import ChoiceSweep, Override

from fairsweep.cli.overrides import as_typed
from fairsweep.config import ConfigError, leaves
from fairsweep.sweeps.compose import Composer


class Word(NamedTuple):
    """An override with what it sets.

    Attributes:
        name: its key without a prefix; of one that chooses in a group, the group behind a slash.
        keys: what it sets; a mapping sets the keys inside it.
    """

    override: Override
    name: str
    keys: frozenset[str]

    @property
    def text(self) -> str:
        """The override as it was written."""
        return str(self.override.input_line)

    @property
    def prefix(self) -> str:
        return self.text[: len(self.text) - len(self.text.lstrip("+~"))]

    @property
    def is_sweep(self) -> bool:
        return self.override.is_sweep_override()

    def replaces(self, other: "Word") -> bool:
        """Whether this one, coming later, leaves nothing of the other."""
        are_whole = all(word.keys == {word.name} and word.prefix != "~" for word in (self, other))
        return are_whole and self.name == other.name

    def overlaps(self, other: "Word") -> bool:
        """Whether both set the same key, or one sets a key inside the other's."""
        return any(
            f"{one}.".startswith(f"{another}.") or f"{another}.".startswith(f"{one}.")
            for one in self.keys
            for another in other.keys
        )


def read(texts: list[str], composer: Composer) -> list[Word]:
    """Overrides as they were typed."""
    return [word(override, composer) for override in composer.parse(list(map(as_typed, texts)))]


def word(override: Override, composer: Composer) -> Word:
    """What an override sets."""
    value = override.value()
    values = [value]
    if isinstance(value, ChoiceSweep) and any(isinstance(choice, dict) for choice in value.list):
        texts = override.sweep_string_iterator()
        values = [o.value() for o in composer.parse([f"{override.key_or_group}={text}" for text in texts])]
    key = override.get_key_element().lstrip("+~")
    if composer.is_choice(override) and not all(isinstance(value, dict) for value in values):
        return Word(override, f"/{key}", frozenset([f"/{key}"]))
    return Word(override, key, frozenset(inner for value in values for inner in leaves(value, key)))


def in_order(words: Iterable[Word], composer: Composer) -> tuple[list[Word], dict[str, Word]]:
    """The words that fix something, and by name those that sweep; a later one replaces an earlier one.

    Raises:
        ConfigError: a word changes a part of what an earlier one sweeps.
    """
    fixed: list[Word] = []
    swept: dict[str, Word] = {}
    for given in words:
        later, earlier = given, swept.get(given.name)
        if earlier is not None and later.replaces(earlier):
            del swept[later.name]
            if not later.prefix:  # the earlier word may have added the key
                (later,) = read([earlier.prefix + later.text], composer)
        for other in swept.values():
            if later.name == other.name if later.is_sweep else later.overlaps(other):
                order = "" if later.is_sweep else ", or put it first"
                raise ConfigError(
                    f"{later.text}: changes what {other.text} sweeps; give one of the two{order}"
                )
        if later.is_sweep:
            swept[later.name] = later
        else:
            same = [one for one in fixed if later.replaces(one) and later.prefix == one.prefix]
            fixed = [*(one for one in fixed if one not in same), later]
    return fixed, swept


def check_braces(words: Iterable[Word]) -> None:
    """Check that no list was meant that the shell has taken apart.

    Raises:
        ConfigError: two words in a row give one key two values.
    """
    for first, second in pairwise(words):
        if second.replaces(first) and second.text != first.text and not (first.is_sweep or second.is_sweep):
            key, _, value = second.text.partition("=")
            values = f"{first.text.partition('=')[2]},{value}"
            raise ConfigError(
                f"{first.text} {second.text}: gives one key twice in a row, which is what a shell makes of "
                f"{{{values}}}; to sweep, write {key}={values}; else give one of the two"
            )
