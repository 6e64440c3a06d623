"""A file that says it is a video does not make us read anything else."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path

import pytest

from tlbvfi.video import VideoError, probe

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.ts\n"
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


def bound(kind: socket.SocketKind, port: int = 0) -> socket.socket:
    found = socket.socket(socket.AF_INET, kind)
    found.bind(("127.0.0.1", port))
    return found


@pytest.mark.parametrize("text", [HLS, CONCAT, SDP], ids=["hls", "concat", "sdp"])
@pytest.mark.parametrize("is_open", [False, True], ids=["path", "open file"])
def test_what_only_names_another_place_reaches_nobody(tmp_path: Path, text: str, is_open: bool) -> None:
    """Nobody is asked, and nobody waited for: FFmpeg would listen where a description of a stream says so."""
    while (free := bound(socket.SOCK_DGRAM)).getsockname()[1] % 2:  # streams have even ones
        free.close()
    with bound(socket.SOCK_STREAM) as asked, free:
        asked.listen()
        asked.setblocking(False)
        port = (free if text is SDP else asked).getsockname()[1]
        free.close()
        content = text.format(port=port).encode()
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        errors: list[Exception] = []

        def opened() -> None:
            try:
                probe(io.BytesIO(content) if is_open else path)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=opened, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
            bound(socket.SOCK_DGRAM, port).close()  # fails where somebody listens
        with pytest.raises(BlockingIOError):
            asked.accept()
    (error,) = errors
    assert isinstance(error, VideoError) and "is not a readable video" in str(error)
