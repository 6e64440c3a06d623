"""Which models there are, and their files; what is in one is read elsewhere (:mod:`.checkpoint`). Needs no PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

from .quoting import sentence

#: The published weights: their file, and its repository on Hugging Face.
PUBLISHED_FILE, PUBLISHED_REPOSITORY = "vimeo_unet.pth", "ucfzl/TLBVFI"
#: Of the repository, where no other is asked for.
PUBLISHED_REVISION = "main"
#: Models inside the package: name -> file in ``tlbvfi/weights``. The first is the default.
BUILT_IN = {"tlbvfi-small": "tlbvfi-small.safetensors"}
#: What asks for :func:`.bench.stand_in_model` where a weight file is expected.
STAND_IN = "stand-in"


class CheckpointError(ValueError):
    """A weight file that is missing, damaged or of another model. One sentence, naming the file.

    Whatever text of the file is in it, it is one line without control characters, and not long.
    """

    def __init__(self, message: str) -> None:
        super().__init__(sentence(message, 1000))


def built_in_path(name: str) -> Path:
    """The weight file of a built-in model (which may be absent in a source checkout without weights)."""
    return Path(__file__).resolve().parent / "weights" / BUILT_IN[name]


def resolve_source(source: str | os.PathLike[str] | None) -> Path:
    """The weight file meant by `source` (see :func:`tlbvfi.load_model`).

    Raises:
        CheckpointError: there is no such file and no such built-in model.
    """
    if source is None:
        source = next(iter(BUILT_IN))
    path = Path(source)
    try:
        if str(source) in BUILT_IN and not path.is_file():
            path = built_in_path(str(source))
            if not path.is_file():
                raise CheckpointError(f"{path.name}: the built-in model's weights are missing from this installation.")
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder, not a weight file.")
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist (built-in models: {', '.join(BUILT_IN)}).")
    except OSError as error:  # its name is too long, or its folder is closed
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from None
    return path
