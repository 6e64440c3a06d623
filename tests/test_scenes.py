from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import skimage.data
import torch
from torch import Tensor

from tests.scene_figures import cuts
from tests.scene_videos import (
    Shot,
    camera_flash,
    eight_bits,
    grain,
    joined,
    letterbox,
    quantized,
    quarter,
    traps,
    windows,
)
from tlbvfi import video
from tlbvfi.scenes import DEFAULT_THRESHOLD, CutStrip, SceneDetector, is_still, small_picture

CLIP = Path(__file__).resolve().parent.parent / "docs" / "demo.mp4"
PICTURES = ("astronaut", "coffee", "chelsea", "rocket")
WIDTH = 128


@cache
def clip() -> Shot:
    frames = [eight_bits(frame) for frame in video.read_frames(CLIP)]
    return Shot(torch.stack(frames), frames[5])


@cache
def shots() -> tuple[list[Tensor], ...]:
    """The clip, a quarter of it, and pans over pictures; twelve frames each."""
    moving = [frame.float() / 255 for frame in clip().frames[:12]]
    pictures = [torch.from_numpy(getattr(skimage.data, name)()).float() / 255 for name in PICTURES]
    pans = [list(windows(picture, [0.03] * 12)) for picture in pictures]
    return moving, pans[0], pans[1], [quarter(frame, 3) for frame in moving], pans[2], pans[3]


def scores(detector: SceneDetector, frames: Sequence[Tensor]) -> list[tuple[bool, float]]:
    return [(detector.cut_before(frame), detector.score) for frame in frames]


class TestCuts:
    @pytest.mark.parametrize("width", [16, 48, WIDTH, 400])
    def test_found_where_they_are(self, width: int) -> None:
        case = joined("", "", shots(), width)
        assert tuple(cuts(case.frames())) == case.cuts == (12, 24, 36, 48, 60)

    @pytest.mark.parametrize(
        "change",
        [
            lambda x, _: quantized(x * 0.15),
            lambda x, _: quantized(0.4 + 0.2 * x),
            lambda x, i: grain(x, 0.08, i),
            lambda x, _: letterbox(x),
            lambda x, _: x.mean(-1, keepdim=True).expand(-1, -1, 3),
        ],
        ids=["dark", "low contrast", "grain", "letterbox", "grey"],
    )
    def test_found_in_difficult_pictures(self, change: Callable[[Tensor, int], Tensor]) -> None:
        case = joined("", "", shots(), WIDTH, change)
        assert tuple(cuts(case.frames())) == case.cuts

    def test_three_frames_apart(self) -> None:
        case = joined("", "", [shot[:3] for shot in (*shots(), *shots())], WIDTH)
        assert tuple(cuts(case.frames())) == case.cuts == tuple(range(3, 36, 3))

    @pytest.mark.parametrize("between", [1, 2, 3])
    def test_back_to_the_same_shot(self, between: int) -> None:
        one, other = shots()[:2]
        case = joined("", "", [one[:5], other[:between], one[5:10]], WIDTH)
        assert tuple(cuts(case.frames())) == case.cuts

    def test_between_a_shot_and_black(self) -> None:
        frames = [frame.float() / 255 for frame in clip().frames[:4]]
        black = [torch.zeros_like(frames[0])] * 4
        assert list(cuts([*frames, *black, *frames])) == [4, 8]

    def test_to_another_shot_across_a_white_flash(self) -> None:
        case = joined("", "", [shots()[0][:5], [torch.ones(90, 160, 3)], shots()[1][:5]], WIDTH)
        assert list(cuts(case.frames())) == [6]

    def test_not_in_traps(self) -> None:
        """Flashes, fades, a dissolve, pans, zooms, shake, grain, a large thing that crosses, dropped frames."""
        cases = list(traps("", clip(), WIDTH))
        found = {case.kind: list(cuts(case.frames())) for case in cases}
        assert len(found) > 20
        assert {kind: wrong for kind, wrong in found.items() if wrong} == {}

    def test_not_where_a_flash_lights_the_middle(self) -> None:
        frames = [camera_flash(frame) if index == 6 else frame for index, frame in enumerate(shots()[5])]
        assert list(cuts(frames)) == []


class TestDetector:
    def test_goes_on_alike_from_a_copy(self) -> None:
        frames = list(joined("", "", shots(), WIDTH).frames())
        whole, part = SceneDetector(), SceneDetector()
        whole.start(frames[0])
        part.start(frames[0])
        expected = scores(whole, frames[1:])
        found = []
        for first in range(1, len(frames), 7):
            part = copy.deepcopy(part)
            found += scores(part, frames[first : first + 7])
        assert found == expected
        assert sum(cut for cut, _ in expected) == 5

    def test_start_forgets(self) -> None:
        fresh, used = SceneDetector(), SceneDetector()
        frames = list(joined("", "", shots()[:3], WIDTH).frames())
        used.start(frames[20])
        scores(used, frames[21:])
        for detector in (fresh, used):
            detector.start(frames[0])
        assert used.score == 0
        assert scores(used, frames[1:]) == scores(fresh, frames[1:])

    def test_the_score_decides(self) -> None:
        frames = list(joined("", "", shots(), WIDTH).frames())
        for threshold in (0.2, DEFAULT_THRESHOLD, 1.0):
            detector = SceneDetector(threshold)
            detector.start(frames[0])
            for cut, score in scores(detector, frames[1:]):
                assert cut == (score >= threshold)
                assert 0 <= score <= 1
        assert len(list(cuts(frames, 1.0))) < 5

    def test_keeps_little(self) -> None:
        detector = SceneDetector()
        frame = torch.rand(720, 1280, 3)
        detector.start(frame)
        for shift in range(8):
            detector.cut_before(frame.roll(shift, 1))
        kept = [value for value in vars(detector).values() if not isinstance(value, float)]
        tensors = [item for value in kept for item in value if isinstance(item, Tensor)]
        assert 0 < sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 100_000
        assert all(len(value) < 10 for value in kept)

    def test_the_layout_in_memory_does_not_matter(self) -> None:
        frames = [quantized(frame) for frame in joined("", "", shots()[:3], 400).frames()]

        def planes(frame: Tensor) -> Tensor:
            return frame.permute(2, 0, 1).contiguous().permute(1, 2, 0)

        def inside(frame: Tensor) -> Tensor:
            return torch.nn.functional.pad(frame, (1, 0, 3, 2))[:, 3:-2, 1:]

        results = []
        for change in (Tensor.contiguous, planes, inside, Tensor.double):
            detector = SceneDetector()
            detector.start(change(frames[0]))
            results.append(scores(detector, [change(frame) for frame in frames[1:]]))
        assert all(result == results[0] for result in results)

    @pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 5), (1, 5000), (5000, 1), (7, 300), (33, 33)])
    def test_sizes(self, size: tuple[int, int]) -> None:
        frame = torch.rand(*size, 3, generator=torch.Generator().manual_seed(0))
        black, grey = torch.zeros(*size, 3), torch.full((*size, 3), 0.6)
        detector = SceneDetector()
        detector.start(frame)
        assert not detector.cut_before(frame.clone())
        assert detector.score == 0
        detector.start(black)
        assert detector.cut_before(grey)

    @pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan"), float("inf")])
    def test_bad_thresholds(self, threshold: float) -> None:
        with pytest.raises(ValueError, match=r"^The threshold of scene cuts .*\.$"):
            SceneDetector(threshold)

    def test_the_memory_of_a_frame_may_be_used_again(self) -> None:
        case = joined("", "", shots()[:3], 24)
        frames = list(case.frames())
        memory = frames[0].contiguous().clone()
        detector = SceneDetector()
        detector.start(memory)
        found = []
        for index, frame in enumerate(frames[1:], 1):
            memory.copy_(frame)
            if detector.cut_before(memory):
                found.append(index)
        assert tuple(found) == case.cuts

    def test_a_small_picture_is_its_own(self) -> None:
        small = small_picture(torch.rand(1080, 1920, 3))
        assert small.shape[0] * small.shape[1] < 1400
        assert torch.equal(small_picture(small), small)


class TestStill:
    def test_equal_frames(self) -> None:
        frame = torch.rand(40, 50, 3)
        assert is_still(frame, frame.clone(), 0.0)
        assert is_still(frame, frame, 0.1)

    def test_at_0_only_equal_frames(self) -> None:
        frame = torch.rand(40, 50, 3)
        other = frame.clone()
        other[39, 49, 2] += 1e-6
        assert not is_still(frame, other, 0.0)
        assert is_still(frame, other, 0.001)

    @pytest.mark.parametrize("place", [(0, 0), (700, 1000), (1079, 1919), (512, 640)])
    def test_a_small_thing_moves_in_a_large_frame(self, place: tuple[int, int]) -> None:
        frame = torch.full((1080, 1920, 3), 0.5)
        other = frame.clone()
        other[place[0] : place[0] + 8, place[1] : place[1] + 8] += 0.5
        assert not is_still(frame, other, 0.001)

    def test_the_mean_of_a_block_decides(self) -> None:
        frame = torch.zeros(64, 64, 3)
        other = frame.clone()
        other[16:32, 32:48] = 0.1
        assert is_still(frame, other, 0.1001)
        assert not is_still(frame, other, 0.0999)

    def test_blocks_at_the_edge_count_as_much(self) -> None:
        frame = torch.zeros(33, 35, 3)
        other = frame.clone()
        other[32, 32:] = 0.1
        assert not is_still(frame, other, 0.09)

    def test_noise_is_still(self) -> None:
        frame = torch.rand(100, 100, 3).half()
        assert is_still(frame, frame + 0.002 * torch.randn(100, 100, 3).half(), 0.01)

    def test_not_finite_is_not_still(self) -> None:
        assert not is_still(torch.zeros(4, 4, 3), torch.full((4, 4, 3), float("nan")), 0.5)

    def test_other_sizes_are_not_still(self) -> None:
        assert not is_still(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3), 0.5)


class TestStrip:
    @staticmethod
    def strip(count: int, most: int = 24, height: int = 96, size: tuple[int, int] = (90, 160)) -> CutStrip:
        strip = CutStrip(height, most)
        for index in range(count):
            strip.add(30 * (index + 1), torch.full((*size, 3), 0.2), torch.full((*size, 3), 0.7))
        return strip

    def test_shows_both_frames_and_their_numbers(self) -> None:
        picture = self.strip(1).picture()
        assert picture.dtype == torch.float32
        assert picture.shape[2] == 3 and 0 <= float(picture.min()) <= float(picture.max()) <= 1
        for value in (0.2, 0.7):
            assert int((picture == value).all(2).sum()) == 96 * 171
        below = picture[-25:]
        assert float(below.max()) > 0.8

    def test_numbers_differ(self) -> None:
        one, other = CutStrip(), CutStrip()
        one.add(30, torch.zeros(9, 16, 3), torch.zeros(9, 16, 3))
        other.add(31, torch.zeros(9, 16, 3), torch.zeros(9, 16, 3))
        assert not torch.equal(one.picture(), other.picture())

    def test_no_cuts(self) -> None:
        picture = CutStrip().picture()
        assert picture.ndim == 3 and float(picture.std()) > 0.01

    def test_tells_how_many_are_not_drawn(self) -> None:
        drawn, more, many = (self.strip(count, 4).picture() for count in (4, 5, 9))
        assert more.shape == many.shape
        assert more.shape[0] > drawn.shape[0]
        assert torch.equal(drawn, more[: drawn.shape[0]])
        assert not torch.equal(more, many)

    def test_keeps_no_frames(self) -> None:
        strip = CutStrip()
        frame = torch.rand(720, 1280, 3)
        small = torch.rand(96, 100, 3)
        strip.add(5, frame, small)
        before = strip.picture()
        frame.zero_()
        small.zero_()
        assert torch.equal(strip.picture(), before)

    @pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (97, 31)])
    def test_sizes(self, size: tuple[int, int]) -> None:
        picture = self.strip(3, size=size).picture()
        assert picture.shape[0] < 400 and picture.shape[1] < 1200

    def test_without_pillow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = self.strip(2).picture()
        monkeypatch.setitem(sys.modules, "PIL", None)
        plain = self.strip(2).picture()
        assert plain.shape == expected.shape
        assert not torch.equal(plain, expected)
        assert CutStrip().picture().ndim == 3

    @pytest.mark.parametrize("arguments", [(0, 24), (96, 0), (1.5, 24)])
    def test_bad_arguments(self, arguments: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="whole number"):
            CutStrip(*arguments)
