"""Small changes that would be faults, and the tests that notice them; the lists are the TOML files of this folder.

A mutant is named by `name`, and has the `file` that it changes, the text `before`, which is there once, the text
`after`, the `tests` of which at least one fails then, and `why` that matters. An `equivalent` is a change that no test
can notice, with the reason, so that nobody looks for one again; it is not run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """A small change of one file.

    Attributes:
        tests: files of tests, or single tests of them as pytest names them; none for an equivalent.
    """

    name: str
    file: str
    before: str
    after: str
    why: str
    tests: tuple[str, ...] = ()

    @property
    def equivalent(self) -> bool:
        return not self.tests

    def applied(self, text: str) -> str | None:
        """The file's text with the change; None where it does not apply."""
        return text.replace(self.before, self.after) if text.count(self.before) == 1 else None


def listed() -> list[Mutant]:
    """All of them, by their files and in order."""
    found = []
    for path in sorted(LISTS.glob("*.toml")):
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(values) <= {"mutant", "equivalent"}, path
        for entry in values.get("mutant", []):
            found.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
        found += [Mutant(**entry) for entry in values.get("equivalent", [])]
    return found
