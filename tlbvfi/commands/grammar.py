"""What the commands' arguments are made of: the parser, types whose errors are one sentence, options of several."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, get_args

from ..numbers import frame_rate
from ..quoting import escaped, quoted
from ..ranges import PaddingMode, check_flow_scale
from ..schedules import SCHEDULES, listed
from .errors import WrongCall

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]
    Arguments = argparse._ActionsContainer  # a command's, or a group of them

#: How a dtype may be written, and its name in PyTorch.
DTYPES = {
    "float32": "float32", "fp32": "float32",
    "float16": "float16", "fp16": "float16",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
}  # fmt: skip

#: What stands for a choice of ours.
AUTO = "auto"
#: What stands for standard input or output.
_PIPE = "-"

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Raises :class:`WrongCall` where argparse would print and exit; shows an example there and below the help.

    Attributes:
        example: the arguments of a call.
    """

    example: str

    def error(self, message: str) -> NoReturn:
        raise WrongCall(f"{self.prog}: {escaped(message, 1500)}\n{self._shown()}")

    def format_help(self) -> str:
        return f"{super().format_help()}\n{self._shown()}\n"

    def _shown(self) -> str:
        return f"Example: {self.prog} {self.example}"

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Nothing unknown is left over: the command that it was given to says so, not the one above it."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
) -> Parser:
    """A command of that name, whose arguments are still to be added; `text` is its help, `example` a call's arguments.

    `run` checks what it can before it imports what needs PyTorch, which takes seconds.
    """
    command = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    command.example = example
    command.set_defaults(run=run)
    return command


def add_device(command: Arguments) -> None:
    """``--device``; :func:`tlbvfi.commands.models.device_named` reads it."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps or xpu")


def add_padding(command: Arguments, text: str, default: PaddingMode | None = "tight") -> None:
    """``--padding``, explained by `text`."""
    command.add_argument("--padding", choices=get_args(PaddingMode), default=default, help=text)


def checked(convert_text: Callable[[str], T]) -> Callable[[str], T]:
    """An argparse type whose ValueError sentence is shown."""

    def convert(text: str) -> T:
        try:
            return convert_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def number_between(low: int, high: int) -> Callable[[str], int]:
    """The type of a whole number from `low` to `high`."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text.strip()) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number between {low} and {high}, not {text!r}.")
        return int(text)

    return checked(number)


@checked
def flow_scale(text: str) -> float:
    """A number from 0.1 to 1."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"must be a number such as 0.5, not {text!r}.") from None
    check_flow_scale(value)
    return value


@checked
def size(text: str) -> tuple[int, int]:
    """(height, width) of WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text.strip())
    if match is None or 0 in (found := (int(match[2]), int(match[1]))):
        raise ValueError(f"a size is WIDTHxHEIGHT, such as 1920x1080, not {text!r}.")
    return found


@checked
def dtype(text: str) -> str:
    """The name of one of :data:`DTYPES`; :func:`tlbvfi.commands.models.dtype_named` has the dtype."""
    if text not in DTYPES:
        raise ValueError(f"must be one of {', '.join(DTYPES)}, not {text!r}.")
    return DTYPES[text]


def dtype_or_auto(text: str) -> str:
    """One of :data:`DTYPES`, or :data:`AUTO`."""
    return text if text == AUTO else dtype(text)


@checked
def strip_rows(text: str) -> int | str:
    """A number of rows, or "whole"."""
    if text == "whole":
        return text
    if not re.fullmatch(r"\d{1,6}", text) or int(text) < 1:
        raise ValueError(f"must be a number of rows such as 256, or whole, not {text!r}.")
    return int(text)


@checked
def gibibytes(text: str) -> int:
    """Bytes of a number of GiB."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"must be a number of GiB such as 8, not {text!r}.")
    return round(value * 2**30)


@checked
def rate(text: str) -> Fraction:
    """Frames per second."""
    return frame_rate("it", text)


@checked
def time(text: str) -> Fraction:
    """Seconds of a number of them, or of [H:]MM:SS."""
    match = re.fullmatch(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,9})?)", text.strip())
    if match is None or (match[2] is not None and Fraction(match[3]) >= 60) or (match[1] and int(match[2]) >= 60):
        raise ValueError(f"must be seconds, or H:MM:SS.mmm such as 0:01:30.5, not {text!r}.")
    return Fraction(match[3]) + 60 * int(match[2] or 0) + 3600 * int(match[1] or 0)


@checked
def segment(text: str) -> int | Fraction:
    """A number of frames, or seconds of a number with an s."""
    match = re.fullmatch(r"(?:(\d{1,7})|(\d{1,5}(?:\.\d{1,6})?)s)", text.strip())
    value = 0 if match is None else int(match[1]) if match[1] else Fraction(match[2])
    if not 0 < value <= 1_000_000:
        raise ValueError(f"must be between 1 and 1000000 source frames, or seconds such as 10s, not {text!r}.")
    return value


@checked
def part(text: str) -> float:
    """A number from 0 to 1, of which a card has ten thousand parts."""
    value = threshold(text)
    if 0 < value < 0.01:
        raise ValueError(f"must be 0, or between 0.01 and 1, not {text!r}.")
    return value


@checked
def threshold(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"must be a number between 0 and 1, not {text!r}.")
    return value


def schedule_below(count: int) -> Callable[[str], str | tuple[int, ...]]:
    """The type of the name of a schedule, or of a list of timesteps below `count`."""

    def schedule(text: str) -> str | tuple[int, ...]:
        name = text.strip().lower()
        if name in SCHEDULES:
            return name
        if re.search(r"[^\W\d]", text):
            raise ValueError(
                f"must be {', '.join(SCHEDULES)}, or a list of timesteps such as {count - 1},{count // 2},0, "
                f"not {quoted(text)}."
            )
        return tuple(listed("it", text, count - 1))

    return checked(schedule)


def threshold_or_auto(text: str) -> float | str:
    """A number from 0 to 1, or :data:`AUTO`."""
    return text if text == AUTO else threshold(text)


@checked
def file(text: str) -> Path:
    """A file or a folder."""
    if not text or "\0" in text:
        raise ValueError(f"must be the name of a file or a folder, not {text!r}.")
    return Path(text)


def file_or_pipe(text: str) -> Path | None:
    """A file or a folder, or None for standard input or output."""
    return None if text == _PIPE else file(text)
