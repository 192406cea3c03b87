"""Open a file as a video, or say in one word why not: everything that can be known before the first frame.

The path is checked with `stat` before it is opened (a FIFO blocks for ever), opened as an absolute path through the
`file` protocol only (`concat:a` is a legal file name), and by a list of containers (FFmpeg plays text files that
name other files, and pictures).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

REASONS = {
    "missing_file": "no such file, or a symbolic link to nothing",
    "link_loop": "a symbolic link or directory that leads back to itself",
    "not_a_file": "a FIFO, socket, device or directory where a file was expected",
    "unreadable": "the operating system refuses to read it",
    "empty_file": "zero bytes",
    "not_a_video": "no video container, or one that is not on the list (scripts, play lists, pictures)",
    "no_video_stream": "only sound, or only an attached picture",
    "no_decoder": "a codec that this FFmpeg cannot decode",
    "encrypted": "protected by DRM",
    "too_large": "more pixels a frame than the limit",
    "hdr_unsupported": "high dynamic range, and the settings say refuse",
    "truncated": "fewer frames than the header promises",
    "zero_frames": "opens, and yields no frame at all",
    "decode_error": "more damaged packets or frames than the limit",
    "timestamps": "a gap between two frames that cannot be filled at the asked rate",
    "annot_missing": "a crop that follows annotations, and none for this video or frame",
    "wrong_length": "another number of frames than the tables of its data set say",
    "wrong_rate": "another frame rate than the tables of its data set say",
    "bad_rows": "what was logged beside the frames is missing, not finite or of another shape",
    "too_short": "fewer frames than one training window",
}
"""Every reason a `VideoError` can carry, with its meaning."""

# Pictures (png_pipe ...), scripts (concat, hls, dash ...) and devices are absent on purpose. GIF is a video here.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,"
    "h264,hevc,m4v,ivf,obu,av1,ogg,rm,gif,mxf,nut,y4m,yuv4mpegpipe,dv,wtv,mjpeg"
)

_EBML = b"\x1a\x45\xdf\xa3"
APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
"""How the companions begin that macOS leaves beside files on foreign disks (`._x.mp4`), and AppleSingle files."""

_RIFF_VIDEOS = (b"AVI ", b"AVIX", b"CDXA")
_PICTURE_BRANDS = (b"mif1", b"heic", b"heix", b"heim", b"heis", b"avif", b"crx ")
_SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ")
_SHARED_SUFFIXES = (".ts", ".mts")  # with TypeScript
_NO_TEXT = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))


class VideoError(ValueError):
    """A file that cannot be used: `reason` is a key of `REASONS`, `detail` a clause for people."""

    def __init__(self, reason: str, detail: str):
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self):
        return VideoError, (self.reason, self.detail)


def check_regular(file: Path) -> int:
    """Size of a regular, non-empty file, in bytes; never opens it."""
    try:
        status = file.stat()
    except FileNotFoundError:
        broken = file.is_symlink()
        raise VideoError("missing_file", "broken symbolic link" if broken else "no such file") from None
    except OSError as error:
        reason = "link_loop" if error.errno == errno.ELOOP else "unreadable"
        raise VideoError(
            reason, "symbolic link loop" if reason == "link_loop" else str(error.strerror)
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = (
            "FIFO" if stat.S_ISFIFO(status.st_mode) else "directory" if file.is_dir() else "device or socket"
        )
        raise VideoError("not_a_file", f"not a regular file ({kind})")
    if status.st_size == 0:
        raise VideoError("empty_file", "empty file")
    if not os.access(file, os.R_OK):
        raise VideoError("unreadable", "permission denied")
    return status.st_size


def open_container(file: Path) -> InputContainer:
    """The container of a regular file, if it is on the list."""
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        with file.open("rb") as handle:
            head = handle.read(64)
        if (
            head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS
        ):  # FFmpeg would play it as a video of one frame
            raise VideoError("not_a_video", "a picture, not a video")
        if _is_webm(head):
            # Its header tells all: do not let FFmpeg decode the first picture twice to learn its size.
            # The decoder that we open later is not bound by this.
            options["codec_whitelist"] = "none"
        return av.open(f"file:{file}", options=options, metadata_errors="replace")
    except av.error.EOFError:
        raise VideoError("truncated", "the header is incomplete") from None
    except PermissionError:
        raise VideoError("unreadable", "permission denied") from None
    except VideoError:
        raise
    except (av.error.FFmpegError, ValueError):
        raise VideoError(*_what_it_is(file)) from None


def has_only_the_name(file: Path) -> bool:
    """Whether a regular file is called like a video for another reason: `._x.mp4` of macOS, or a program in TypeScript."""
    companion, shared = file.name.startswith("._"), file.suffix.lower() in _SHARED_SUFFIXES
    if not companion and not shared:
        return False
    try:
        with file.open("rb") as handle:
            head = handle.read(1024)
    except OSError:
        return False  # opening it as a video will say why
    return head.startswith(APPLE_DOUBLE) or (shared and bool(head) and is_text(head))


def is_text(head: bytes) -> bool:
    """Whether these first bytes of a file are text."""
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or len(head.translate(None, _NO_TEXT)) == len(head)


def _is_webm(head: bytes) -> bool:
    """Whether it is Matroska of the kind `webm`: VP8, VP9 or AV1, whose pictures come in order."""
    return head.startswith(_EBML) and b"webm" in head


def _what_it_is(file: Path) -> tuple[str, str]:
    """(reason, detail) for a file that no container on the list takes, by its first bytes."""
    with file.open("rb") as handle:
        head = handle.read(512)
    text = head.lstrip().lower()
    if head.startswith(APPLE_DOUBLE):
        return "not_a_video", "what macOS keeps beside a file (AppleDouble), not a video"
    if head.startswith(b"RIFF") and head[8:12] not in _RIFF_VIDEOS:
        return (
            "not_a_video",
            f"a RIFF file of kind {head[8:12].decode('latin-1')!r} (WebP, WAV ...), not a video",
        )
    if head[4:8] == b"ftyp" and head[8:12] in _SOUND_BRANDS:
        return "not_a_video", "sound, not a video"
    if head[4:8] == b"ftyp" or head.startswith((_EBML, b"RIFF", b"FLV", b"OggS")):
        return "truncated", "a video container begins, and what it needs is missing: cut short or damaged"
    if text.startswith(b"ffconcat"):
        return "not_a_video", "a concat script, not a video"
    if text.startswith(b"#extm3u"):
        return "not_a_video", "a play list, not a video"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "not_a_video", "a saved web page, not a video"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return "not_a_video", "a picture, not a video"
    return "not_a_video", "not a video: no container on the list matches its content"


def pick_stream(container: InputContainer) -> VideoStream:
    """The stream that a player would show, with a decoder on one thread."""
    try:
        stream = container.streams.best("video")
    except IndexError:  # sound only
        stream = None
    if stream is None:
        raise VideoError("no_video_stream", "no video stream")
    if stream.disposition & Disposition.attached_pic:
        raise VideoError("no_video_stream", "only an attached picture (cover art)")
    codec = stream.codec_context
    if codec is None or codec.codec is None:
        raise VideoError("no_decoder", "no decoder for this codec")
    assert isinstance(stream, VideoStream)
    stream.thread_type = "NONE"
    codec.thread_count = 1
    return stream
