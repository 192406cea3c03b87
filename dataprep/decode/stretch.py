"""Frames `start` to `start + length` of a file that holds many videos one after another, counted and not timed.

    packets, without decoding        number of every shown frame by its timestamp, and which are key frames
    stretch after stretch            decoding goes on where the last one ended, else from the key frame before it

A frame is known by its timestamp, so one that cannot be decoded is missed by its number and shifts no other.
"""

from __future__ import annotations

import bisect
import functools
import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame

from cwm_hub.shards.arrays import Arrays
from dataprep.decode.colour import ContainerColour
from dataprep.decode.frames import DecodeSettings
from dataprep.decode.hdr import HDR_TRANSFERS
from dataprep.decode.orientation import UPRIGHT, Orientation, orientation_of
from dataprep.decode.resize import FrameConverter
from dataprep.decode.sample_entry import read_sample_entry
from dataprep.decode.video_file import VideoError, check_regular, open_container, pick_stream


class LongVideo:
    """An open file whose frames are numbered by their order in time; stretches are cheap in that order."""

    def __init__(self, path: str | os.PathLike[str], settings: DecodeSettings):
        """Count the frames.

        Raises:
            VideoError: The file cannot be opened, or its packets cannot be told apart by their timestamps.
        """
        file = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would fail on a link loop)
        check_regular(file)
        self._settings = settings
        self._container = open_container(file)
        self._stream = pick_stream(self._container)
        context = self._stream.codec_context
        entry = read_sample_entry(file, track=self._stream.id, container=self._container.format.name)
        self._colour = ContainerColour.read(context, entry)
        if context.width * context.height > settings.max_pixels:
            detail = f"{context.width}x{context.height} is more than {settings.max_pixels} pixels a frame"
            raise VideoError("too_large", detail)
        self._to_pixels = FrameConverter(settings.size, resize=settings.resize, fit=settings.fit)
        self._ticks, self._key_numbers = self._count()
        self._number = {tick: number for number, tick in enumerate(self._ticks)}
        self._orientation: Orientation | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._waiting: VideoFrame | None = None
        """Decoded, and of a later stretch."""
        self._next: int | None = None
        """Number of the next frame that decoding goes on with; None: nowhere."""

    @property
    def frame_count(self) -> int:
        """Frames that the file shows."""
        return len(self._ticks)

    @functools.cached_property
    def rate(self) -> float | None:
        """Frames a second by the usual step of the clock; None for a single frame."""
        if len(self._ticks) < 2 or not self._stream.time_base:
            return None
        return 1 / float(np.median(np.diff(self._ticks)) * float(self._stream.time_base))

    def stretch(self, start: int, length: int) -> Iterator[tuple[int, VideoFrame]]:
        """(number, frame) for those of the frames that can be decoded, in order."""
        self._go_to(start)
        while self._next is not None and self._next < start + length:
            frame = self._waiting or next(self._frames, None)
            self._waiting = None
            if frame is None:
                self._next = None
                return
            self._orientation = orientation_of(frame, self._orientation)  # of frames before the stretch too
            number = None if frame.pts is None else self._number.get(frame.pts)
            if number is None:  # hidden by the container
                continue
            if number >= start + length:
                self._waiting, self._next = frame, number
                return
            self._next = number + 1
            if number >= start:
                yield number, frame

    def pixels(self, frame: VideoFrame, number: int) -> np.ndarray:
        """The frame that `stretch` gave last as u8 [H, W, 3], upright.

        Raises:
            VideoError: It cannot be converted, or is HDR where the settings refuse that.
        """
        self._colour.complete(frame)
        if self._settings.hdr == "refuse" and frame.color_trc in HDR_TRANSFERS:
            raise VideoError("hdr_unsupported", "the transfer function is PQ or HLG")
        try:
            return self._to_pixels(frame, number, self._orientation or UPRIGHT)
        except av.error.FFmpegError as error:
            detail = f"frame {number} cannot be converted: {error.strerror}"
            raise VideoError("decode_error", detail) from error

    def _count(self) -> tuple[list[int], list[int]]:
        """Timestamps of the shown frames in order, and the numbers of the key frames."""
        ticks: list[int] = []
        keys: set[int] = set()
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None:
                    raise VideoError("timestamps", "a packet without a timestamp")
                ticks.append(packet.pts)
                if packet.is_keyframe:
                    keys.add(packet.pts)
        except av.error.FFmpegError:
            pass  # the file ends here: stretches before it can be used
        ticks.sort()
        if len(set(ticks)) != len(ticks):
            raise VideoError("timestamps", "two packets have one timestamp")
        return ticks, [number for number, tick in enumerate(ticks) if tick in keys]

    def _go_to(self, start: int) -> None:
        """Make decoding reach frame `start` next, from the last key frame before it or from where it is."""
        key = max(0, bisect.bisect_right(self._key_numbers, start) - 1)
        last_key = self._key_numbers[key] if self._key_numbers else 0
        if self._next is not None and last_key <= self._next <= start:
            return
        self._waiting = None
        earlier = (self._key_numbers[max(0, key - back)] for back in (0, 2, key) if self._key_numbers)
        for number in (*earlier, 0):
            self._container.seek(self._ticks[number], stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets, None)
            if first is not None and first.pts is not None and first.pts <= self._ticks[number]:
                self._frames, self._next = self._decode(first, packets), min(number, start)
                return
        self._next = None

    def _decode(self, first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[VideoFrame]:
        """Packet by packet: one that fails costs its own frames."""
        packet: av.Packet | None = first
        while packet is not None:
            try:
                for frame in packet.decode():
                    assert isinstance(frame, VideoFrame)
                    yield frame
            except av.error.FFmpegError:
                pass  # its frames are missed by their numbers
            try:
                packet = next(rest, None)
            except av.error.FFmpegError:  # the demuxer gave up
                return


class StretchReader:
    """One stretch as the `FrameReader` of a worker: all of its frames, or a reason."""

    def __init__(self, video: LongVideo, settings: DecodeSettings, *, start: int, length: int, fps: float):
        """Set up without decoding; `fps` is the rate of the file's frames, per second."""
        self._video = video
        self._settings = settings
        self._start = start
        self._length = length
        self._kept = kept_frames(length, fps, settings)
        self.output_fps = (settings.fps or fps) / settings.stride
        self.arrays: Arrays | None = None
        """Logged beside the frames, a row for each that is yielded."""
        self.alive: Callable[[], None] = lambda: None
        """Called for every frame that was decoded."""

    def __enter__(self) -> StretchReader:
        return self

    def __exit__(self, *_: object) -> None:
        """The file stays open for the next stretch."""

    def __iter__(self) -> Iterator[np.ndarray]:
        start, length, settings = self._start, self._length, self._settings
        kept, missing = self._kept, list[int]()
        done = corrupt = 0
        expected = start
        for number, frame in self._video.stretch(start, length):
            self.alive()
            missing += range(expected, number)
            expected = number + 1
            corrupt += bool(frame.is_corrupt)
            while done < len(kept) and kept[done] < number - start:
                done += 1
            pixels = None
            while done < len(kept) and kept[done] == number - start:
                pixels = self._video.pixels(frame, number) if pixels is None else pixels
                yield pixels
                done += 1
        missing += range(expected, start + length)
        if missing or corrupt > settings.max_damaged_share * length:
            where = f", the first is frame {missing[0]} of the file" if missing else ""
            detail = f"{len(missing)} of {length} frames cannot be decoded, {corrupt} are damaged{where}"
            raise VideoError("decode_error", detail)
        if len(kept) < settings.min_frames:
            raise VideoError("too_short", f"{len(kept)} < {settings.min_frames} frames")


def kept_frames(length: int, fps: float, settings: DecodeSettings) -> list[int]:
    """Which of `length` frames at a constant rate are kept, in order; some several times where the rate is raised.

    The nearest frame to each tick of `settings.fps`, the earlier one of two that are as near; then stride.

    >>> kept_frames(6, 10, DecodeSettings(fps=5.0))
    [0, 2, 4]
    """
    numbers = list(range(length))
    if settings.fps is not None and length:
        step = Fraction(fps).limit_denominator(100_000) / Fraction(settings.fps).limit_denominator(100_000)
        # a quarter of a tick, as for other videos: resampling to the native rate changes nothing
        ticks = math.floor((length - 1) / step + Fraction(1, 4)) + 1
        half = Fraction(1, 2)
        numbers = [min(length - 1, math.ceil(tick * step - half)) for tick in range(ticks)]
    return [
        number
        for index, number in enumerate(numbers)
        if index >= settings.skip_head and index % settings.stride == 0
    ]
