"""`python tasks.py release`: build what the registry would get in a temporary folder, and say what it lacks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.fake_host import loaded_pack

from . import metadata, stamps
from .archive import ROOT, NotInGit
from .check import Report, check


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tasks.py release", description=__doc__)
    parser.add_argument("--check", action="store_true", help="build the archive, and say its size and what is missing")
    parser.add_argument("--strict", action="store_true", help="with --check: placeholders are missing values too")
    parser.add_argument("--list", action="store_true", help="with --check: name every file of the archive")
    parser.add_argument("--stamp", action="store_true", help="write the pack's name and version into the graphs")
    options = parser.parse_args(arguments)
    if options.stamp:
        stamp()
    if not options.check:
        if not options.stamp:
            parser.print_help()
        return 0 if options.stamp else 2
    try:
        report = check()
    except NotInGit as error:
        print(f"tasks.py: {error}", file=sys.stderr)
        return 1
    return say(report, every=options.list, strict=options.strict)


def stamp() -> None:
    wanted = stamps.wanted(metadata.read())
    with loaded_pack("_pack_of_the_release", ROOT / "no models") as pack:
        changed = stamps.stamp_all(pack.NODE_CLASS_MAPPINGS, wanted)
    print(f"{wanted['cnr_id']} {wanted['ver']}: {', '.join(changed) or 'every graph says so already'}")


def say(report: Report, *, every: bool, strict: bool) -> int:
    """Print it; returns the exit code."""
    print(f"The archive has {len(report.names)} files, {report.size / 1e6:.1f} MB.")
    for title, lines in (
        ("Its files", report.names if every else []),
        ("Notes", report.notes),
        ("What the registry's reviewers may ask about", report.allowed),
        ("PLACEHOLDERS, for the owner", [f"{path} = {value!r}" for path, value in report.placeholders.items()]),
        ("MISSING", report.missing),
    ):
        if lines:
            print(f"\n{title}:", *(f"  {line}" for line in lines), sep="\n")
    left = bool(report.missing or (strict and report.placeholders))
    print(
        "\nNot ready." if left else "\nNothing is missing but the placeholders." if report.placeholders else "\nReady."
    )
    return int(left)


if __name__ == "__main__":
    sys.exit(main())
