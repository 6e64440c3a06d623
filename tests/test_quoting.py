"""Text from strangers in messages: one line, nothing that a terminal obeys, and short."""

from __future__ import annotations

import pytest

from tlbvfi.quoting import named, quoted, sentence

NESTED: list[object] = []
for _ in range(5000):
    NESTED = [NESTED]


class Rude:
    def __repr__(self) -> str:
        raise SystemError("no")

    __str__ = __repr__


@pytest.mark.parametrize(
    "value",
    [
        "\x1b[31mred\x1b[0m\r\n", "a" * 200_000, "\0" * 200_000, "\u202e\u2028\ud800", "'\"" * 300, b"\x1b" * 999,
        10**9999, -(10**400), float("nan"), NESTED, list(range(10**5)), {"k\n" * 99: "\x1b"}, Rude(), None,
        True, (1, 2), "",
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("limit", [20, 80])
def test_one_short_printable_line(value: object, limit: int) -> None:
    for shown in (quoted(value, limit), sentence(value, limit)):
        assert shown.isprintable()
        assert len(shown) <= limit + 24
    assert named(value).isprintable()


def test_what_is_harmless_stays() -> None:
    assert quoted("a'b") == '"a\'b"'
    assert quoted([1, 2.5, "x", None]) == "[1, 2.5, 'x', None]"
    assert quoted("a" * 100, 10) == "'aaaaaa...'"
    assert named("vqgan.encoder.0.weight") == "vqgan.encoder.0.weight"
    assert named("a b") == "'a b'"
    assert sentence("It is wrong;\n  see  there.") == "It is wrong; see  there."
    assert sentence(ValueError("größer als 1")) == "größer als 1"
    assert sentence("x" * 600).endswith("...")
