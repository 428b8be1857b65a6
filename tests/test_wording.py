"""How text from outside is put on the terminal."""

import pytest

from fairsweep.wording import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("digit 7.png", "digit 7.png"),
        ("naïve 数字 😀\n\tnext line", "naïve 数字 😀\n\tnext line"),
        ("\x1b[2Jred\x07\r", r"\x1b[2Jred\x07\r"),
        ("\x9b31m", r"\x9b31m"),  # an escape sequence in one character
        ("a\u202egnp.exe", r"a\u202egnp.exe"),  # would turn round what follows
        ("caf\udce9.png", r"caf\udce9.png"),  # a file name that is not UTF-8
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()
