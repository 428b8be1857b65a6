"""How keys, values, counts and times are put in words, on the terminal, in names and in reports."""

import unicodedata
from collections.abc import Iterable, Mapping

# Control and format characters, surrogates (bytes of a file name that are not text), separators of lines.
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def short(key: str) -> str:
    """The last part of an override's key."""
    return key.lstrip("+~").rsplit(".", 1)[-1]


def shown(value: str) -> str:
    """A value as shown in tables and names: long numbers cut to four digits."""
    try:
        number = float(value)
    except ValueError:
        return value
    return f"{number:.4g}" if len(value) > 8 else value


def described(values: Mapping[str, str]) -> str:
    """`lr=0.01 momentum=0.9`: values, each by its short key."""
    return " ".join(f"{short(key)}={shown(value)}" for key, value in values.items())


def counted(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def joined(*parts: str) -> str:
    """`adam vs sgd · digits · mlp`: the parts that are not empty."""
    return " · ".join(filter(None, parts))


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    *rest, end = names
    return f"{', '.join(rest)} {last} {end}" if rest else end


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def age(seconds: float) -> str:
    """How long ago something was: `40 s`, `3 h`, `12 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size(number: float) -> str:
    """Bytes in the unit that suits them: `820 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.{0 if unit == 'B' or number >= 10 else 1}f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def printable(text: str) -> str:
    """The text with `\\x1b` for an escape character, and the like: a terminal obeys such characters."""
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in UNPRINTABLE and char not in "\n\t"
        else char
        for char in text
    )
