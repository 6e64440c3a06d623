"""The nodes in other languages: no text is missing or left over, and none is still in English."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fake_host import REPOSITORY
from tests.locales import ENGLISH, FOLDER, english, text_of

LANGUAGES = ("de", "ja", "ko", "zh", "zh-TW")
#: Nodes whose help pages are translated.
PAGES = ("TLBVFI_Interpolator_V2", "TLBVFI_VideoInterpolator")
_KEPT = re.compile(
    r"https?://[A-Za-z0-9./_-]*[A-Za-z0-9/]|[A-Za-z0-9_.-]+\.(?:pth|safetensors)(?![A-Za-z])|models/interpolation"
    r"|python -m tlbvfi [a-z]+"
)


def leaves(values: Any, path: str = "") -> dict[str, str]:
    """Each text by the keys that lead to it."""
    if isinstance(values, str):
        return {path: values}
    return {place: text for key, value in values.items() for place, text in leaves(value, f"{path}/{key}").items()}


def read(language: str) -> dict[str, str]:
    return leaves(json.loads((FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8")))


def test_the_languages() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted((*LANGUAGES, "en"))


def test_english_is_what_the_nodes_say(tmp_path: Path) -> None:
    """After a change of a node: `python -m tests.locales`, and the new texts in the other languages."""
    assert ENGLISH.read_text(encoding="utf-8") == text_of(english(tmp_path))


@pytest.mark.parametrize("language", LANGUAGES)
class TestLanguage:
    """Each translation."""

    def test_nothing_is_missing_or_left_over(self, language: str) -> None:
        assert read(language).keys() == read("en").keys()

    def test_it_is_translated(self, language: str) -> None:
        texts, originals = read(language), read("en")
        assert all(text.strip() == text and text for text in texts.values())
        assert not [key for key, text in texts.items() if text == originals[key] and len(text) > 30]
        same = [key for key, text in texts.items() if key.endswith("/display_name") and text == originals[key]]
        assert not same

    def test_what_is_no_language_is_kept(self, language: str) -> None:
        """Addresses, file names and commands."""
        texts = read(language)
        for key, original in read("en").items():
            assert sorted(_KEPT.findall(texts[key])) == sorted(_KEPT.findall(original)), key

    @pytest.mark.parametrize("node", PAGES)
    def test_help_pages(self, language: str, node: str) -> None:
        folder = REPOSITORY / "web" / "docs"
        page = (folder / node / f"{language}.md").read_text(encoding="utf-8")
        assert all((folder / node / target).is_file() for target in re.findall(r"\]\(((?!https?:)[^)]*)\)", page))
        page = page.replace("](../", "](")
        original = (folder / f"{node}.md").read_text(encoding="utf-8")
        for shape in (r"^#+ ", r"^\|", r"^```", r"\]\((?:https?:)?[^)]*\)"):
            found, wanted = (re.findall(shape, text, re.MULTILINE) for text in (page, original))
            assert found == wanted if shape.startswith("^") else sorted(found) == sorted(wanted), shape
