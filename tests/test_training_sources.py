"""Pictures are sorted into groups, archives are opened, levels are shrunk without tinting; nothing is fetched."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlbvfi.training import packages, sources
from tlbvfi.training.picture_files import decode, pictures
from tlbvfi.training.shapes import draw_mask
from tlbvfi.training.store import StoreWriter, TextureStore, level_for, premultiply


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def busy(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_decode_tells_photographs_sprites_and_rubbish() -> None:
    group, pixels = decode(encoded(busy(400, 2000)), "photo", 300)
    assert group == "photo" and max(pixels.shape[:2]) == 2000  # a panorama may be long
    group, pixels = decode(encoded(busy(1200, 2000)), "photo", 300)
    assert pixels.shape == (960, 1600, 3)
    assert decode(encoded(busy(200, 400)), "photo", 300) is None
    assert decode(encoded(np.full((400, 400, 3), 90, np.uint8)), "photo", 300) is None
    normals = np.clip(busy(400, 400) // 8 + np.array([112, 112, 224]), 0, 255).astype(np.uint8)
    assert decode(encoded(normals), "texture", 300) is None
    group, _ = decode(encoded(busy(400, 400)), "sprite", 300)
    assert group == "graphic"


def test_sprites_are_cropped_and_premultiplied() -> None:
    rgba = np.concatenate([busy(300, 300), np.zeros((300, 300, 1), np.uint8)], -1)
    rgba[40:200, 50:250, 3] = 200
    group, pixels = decode(encoded(rgba), "texture", 200)
    assert group == "sprite" and pixels.shape == (160, 200, 4)
    assert (pixels[..., :3] <= pixels[..., 3:]).all()


def test_archives_are_searched(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pk3", "w") as archive:
        archive.writestr("textures/wall.png", encoded(busy(8, 8)))
        archive.writestr("readme.txt", "no picture")
    webp = encoded(busy(40, 40), "WEBP")
    (tmp_path / "b.rcc").write_bytes(b"qres" + b"RIFF junk" + webp + b"tail")
    found = dict(pictures(tmp_path))
    assert "a.pk3#textures/wall.png" in found
    (embedded,) = [blob for name, blob in found.items() if "b.rcc#" in name]
    assert embedded[: len(webp)] == webp
    assert Image.open(io.BytesIO(embedded)).size == (40, 40)


def test_every_source_names_a_licence_and_is_listed() -> None:
    listed = (sources.Path(sources.__file__).parent / "SOURCES.md").read_text(encoding="utf-8")
    for source in sources.SOURCES:
        assert source.licence and f"| {source.name} |" in listed and source.licence in listed


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of public repositories."""
    monkeypatch.setattr(packages, "RAW", (tmp_path / "there").as_uri() + "/{name}/{commit}/{path}")
    return tmp_path / "there"


def of_repository(files: dict[str, bytes]) -> packages.Source:
    digests = tuple((path, hashlib.sha256(blob).hexdigest()) for path, blob in files.items())
    return packages.Source("owner/name", "github", "CC0-1.0", (), "0123abc", digests)


def test_files_of_a_repository_are_fetched_once(tmp_path: Path, repository: Path) -> None:
    files = {"one.mp4": b"one", "some folder/two+.mp4": b"two"}
    for path, blob in files.items():
        (repository / "owner/name/0123abc" / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / "owner/name/0123abc" / path).write_bytes(blob)
    target = packages.fetch(of_repository(files), tmp_path / "here")
    assert {path: (target / path).read_bytes() for path in files} == files
    assert sum(found.is_file() for found in target.rglob("*")) == len(files)
    for path in files:
        (repository / "owner/name/0123abc" / path).unlink()
    assert packages.fetch(of_repository(files), tmp_path / "here") == target


def test_another_file_of_the_same_name_is_refused(tmp_path: Path, repository: Path) -> None:
    there = repository / "owner/name/0123abc/one.mp4"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"another")
    for _ in range(2):  # fetched, then found there
        with pytest.raises(RuntimeError, match=r"one\.mp4 has the SHA-256 .* delete it"):
            packages.fetch(of_repository({"one.mp4": b"one"}), tmp_path / "here")


def test_store_round_trip(tmp_path) -> None:
    writer = StoreWriter(tmp_path)
    picture, mask = busy(100, 80), draw_mask(np.random.default_rng(1), 64)
    writer.add(picture, "photo", "here", "a")
    writer.add(mask, "mask", "here", "b")
    with pytest.raises(ValueError, match="needs 4 channels"):
        writer.add(picture, "sprite", "here", "c")
    writer.close()
    store = TextureStore.open(tmp_path)
    assert store.group("photo") == [0] and store.group("mask") == [1] and store.group("text") == []
    assert (store.level(0, 0) == picture.transpose(2, 0, 1)).all()
    assert store.level(0, 2).shape == (3, 50, 40) and store.level(0, 99).shape[1] >= 24
    assert abs(float(store.level(0, 2).mean()) - float(picture.mean())) < 1
    assert store.crop(1, 0, 3, 5, 20, 30).shape == (1, 17, 25)


def test_levels_suffice_for_the_scale() -> None:
    assert level_for(1.0) == 0 and level_for(1.2) == 0
    for texels in (1.5, 3.0, 7.9):
        remaining = texels * 2 ** (-level_for(texels) / 2)
        assert 1.2 / 2**0.5 <= remaining <= 1.2 + 1e-9


def test_premultiply_rounds() -> None:
    pixel = np.array([[[255, 128, 0, 128]]], np.uint8)
    assert premultiply(pixel).tolist() == [[[128, 64, 0, 128]]]


def test_masks_cover_something() -> None:
    rng = np.random.default_rng(3)
    masks = np.stack([draw_mask(rng, 64) for _ in range(40)])
    assert masks.shape == (40, 64, 64, 1) and (masks.max((1, 2, 3)) > 60).all()
