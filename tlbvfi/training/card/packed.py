"""Encoded pictures in one tensor file, and decoded again by OpenCV, several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def encoded(pixels: np.ndarray, kind: str, quality: int = 80) -> bytes:
    """(H, W, C) uint8, RGB or RGBA or grey, as a file of a kind such as ".webp"."""
    import cv2

    channels = pixels.shape[-1]
    if channels > 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if channels == 3 else cv2.COLOR_RGBA2BGRA)
    parameters = [cv2.IMWRITE_WEBP_QUALITY, quality] if kind == ".webp" else []
    done, blob = cv2.imencode(kind, pixels, parameters)
    if not done:
        raise ValueError(f"OpenCV wrote no {kind}")
    return blob.tobytes()


def _decoded(blob: np.ndarray) -> Tensor:
    """(C, H, W) uint8."""
    import cv2

    pixels = cv2.imdecode(blob, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("OpenCV cannot read a picture of the parcel")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.shape[-1] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    else:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def write_packed(
    path: Path, groups: Mapping[str, Iterable[bytes]], tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Groups of encoded pictures, and tensors beside them."""
    content = dict(tensors or {})
    for name, blobs in groups.items():
        kept = list(blobs)
        content[f"{name}.bytes"] = torch.from_numpy(np.frombuffer(b"".join(kept), dtype=np.uint8).copy())
        content[f"{name}.ends"] = torch.tensor([len(blob) for blob in kept]).cumsum(0)
    save_file(content, path)


def read_packed(path: Path, workers: int = 16) -> dict[str, Tensor]:
    """The groups as uint8 (N, C, H, W), each of pictures of one size, and the tensors as they are."""
    content = load_file(path)
    names = [name.removesuffix(".ends") for name in content if name.endswith(".ends")]
    found = {}
    with ThreadPoolExecutor(workers) as pool:
        for name in names:
            flat, ends = content.pop(f"{name}.bytes").numpy(), content.pop(f"{name}.ends").tolist()
            blobs = [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            found[name] = torch.stack(list(pool.map(_decoded, blobs)))
    return {**content, **found}
