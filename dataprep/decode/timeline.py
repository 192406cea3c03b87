"""When each frame is shown, and how long a file promises to last: the rules of time, all in one place.

- **Promise.** A stream's own duration; in Matroska the shorter of the track's DURATION tag (a remark of whoever wrote
  the file before) and the segment's duration; else the container's. A file that shows less is `truncated`.
- **Shown time.** Packets that an edit list hides are decoded, because others need them, and count for nothing.
- **Order.** A decoder gives frames in the order in which they are shown, whatever their timestamps say (AVI has decode
  order only). So the n-th frame has the n-th smallest time of the packets; a packet that gave no frame gives up its time.
- **Rate.** The first of the header's rates that the timestamps confirm, else frames over duration. (AVI's header counts
  empty chunks, Matroska's repeats what somebody wrote into it.) mp4 counts every sample, and is believed.
- **Rounding.** Times within a container's rounding of the rate's grid lie on the grid: an mp4 and its copy in Matroska,
  whose clock has milliseconds, have the same times.
- **Discontinuities.** A clock that goes back by more than 0.7 s was set anew; so was one that leaps ahead by more in
  a container that allows it (MPEG streams, which must give a time every 0.7 s: ISO 13818-1, 2.7.4; Ogg). What follows
  is put right behind what came before.
- **Gaps.** In every other container a leap ahead is time in which the last picture stands still: resampling repeats it,
  up to 60 s.
- **Ties.** Resampling takes the frame nearest to each tick of a clock that starts with the first frame; of two that are
  equally near within `TIE_SECONDS` the earlier one.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import av
import av.error
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from dataprep.decode.orientation import Orientation
from dataprep.decode.video_file import VideoError

LONGEST_GAP_SECONDS = 60.0
LONGEST_STEP_SECONDS = 0.7
"""Between two timestamps of a clock that runs on, unless four frames take longer."""
TIE_SECONDS = 0.00107
"""Beyond a millisecond's rounding, and no multiple of a period that film, PAL or NTSC rates make among themselves."""
CLOCK_ROUNDING_SECONDS = 0.0011
"""A time and the first time are each off by half a millisecond where a clock has milliseconds."""
CONFIRMED = 0.015
"""A header's rate may differ by this share from the measured one."""

HEADER_ROUNDING = 3.5e-4
"""Of a rate: with a time scale of 600, as in QuickTime, 30000/1001 becomes 29.98."""

AHEAD_PACKETS, AHEAD_BYTES = 64, 4 << 20
"""Read ahead of the decoder, always."""
MEASURE_PACKETS, MEASURE_BYTES = 1024, 32 << 20
"""Read ahead once, where the header's rates are not confirmed by the first packets."""


class ShownFrame(NamedTuple):
    """A decoded frame, and what its neighbours and the file say of it."""

    number: int
    """In the source, from 0."""
    seconds: float
    """After the first frame; 0 where nothing is resampled."""
    orientation: Orientation
    frame: VideoFrame


class Timeline:
    """Reads the packets of a stream a little ahead of the decoder, and knows the time of each frame."""

    def __init__(self, container: InputContainer, stream: VideoStream, *, timed: bool = True):
        """Read the first packets; `timed` is whether anybody will ask for `next_frame`."""
        self.promised, own = _promise(container, stream)
        """Seconds, 0 where nobody says."""
        self._container = container
        self._stream = stream
        # Where the container's word is the promise, sound may be what fills it: read every stream's packets.
        self._source = container.demux(*((stream,) if own else container.streams.get()))
        self._source_error: Exception | None = None
        self._source_ended = False
        self._ahead: deque[Packet] = deque()
        self._ahead_bytes = 0
        self._tick_seconds: dict[int, float] = {}  # per stream, as floats: fractions are slow
        self.hidden_packets = 0
        """Read so far that an edit list hides."""
        self._first_seen: float | None = None
        self._end_seen = 0.0

        self._decode_order_only = container.format.name == "avi"  # FFmpeg makes the other timestamps up
        self._clock_may_leap = Flags.ts_discont in Flags(container.format.flags)
        self._offset = 0.0
        self._last_dts: float | None = None
        self._last_noted = 0.0
        self._times: list[float] = []  # a heap: of the packets whose frame has not come yet
        self._unused = 0  # of these, how many have gone to the decoder
        self._header_rates = [
            _exact(float(rate))
            for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)
            if rate and 0.01 <= rate <= 1000
        ] or [25.0]
        self._step = 1.0 / self._header_rates[0]  # the last usual one between packets

        self._keep_times = True  # for the rate
        self.rate = self._find_rate()
        """Frames per second."""
        self._keep_times = timed
        self._rounding = min(
            max(CLOCK_ROUNDING_SECONDS, 1.1 * self._tick_seconds.get(stream.index, 0.0)), 0.45 / self.rate
        )
        self._first: float | None = None
        self._raw = self._shown = self._grid = 0.0

    def packets(self) -> Iterator[Packet]:
        """The stream's packets for the decoder, the empty one that flushes it at the end.

        Raises:
            FFmpegError, IndexError: The demuxer gave up, or met a stream that it did not announce.
        """
        while True:
            self._fill(AHEAD_PACKETS, AHEAD_BYTES)
            if not self._ahead:
                if self._source_error is not None:
                    raise self._source_error
                return
            packet = self._ahead.popleft()
            self._ahead_bytes -= packet.size
            self._unused += packet.size > 0 and not packet.is_discard
            yield packet

    def next_frame(self) -> float:
        """Seconds after the first frame at which the frame is shown that the decoder has just given; always growing."""
        waiting = self._stream.codec_context.reorder_depth
        while self._unused > waiting + 1 and len(self._times) > 1:  # a packet that gave no frame
            heapq.heappop(self._times)
            self._unused -= 1
        time = heapq.heappop(self._times) if self._times else None
        self._unused = max(0, self._unused - 1)
        if self._first is None:
            self._first = time or 0.0
            return 0.0
        raw = self._raw + 1.0 / self.rate if time is None else time - self._first
        if raw <= self._raw:
            following = self._times[0] - self._first if self._times else 0.0
            raw = (self._raw + following) / 2 if following > self._raw else self._raw + 1.0 / self.rate
        self._raw = raw
        self._shown = self._on_grid(raw)
        return self._shown

    def _on_grid(self, raw: float) -> float:
        """The time on the rate's grid: the one that the first frame began, or the one since times last left it."""
        for start in (0.0, self._grid):
            time = start + round((raw - start) * self.rate) / self.rate
            if abs(time - raw) <= self._rounding and time > self._shown:
                return time
        self._grid = raw
        return max(raw, self._shown)

    def check_whole(self, *, file_bytes: int, cut_short: bool, frames: int) -> None:
        """Raise `VideoError` where less was shown than promised, or the file ends inside a packet."""
        # These count their duration from zero, the others from the first frame.
        from_zero = self._container.format.name in ("matroska,webm", "flv", "avi")
        start = 0.0 if from_zero else self._first_seen or 0.0
        seen = self._end_seen - start
        tolerance = max(2.0 / self.rate, 0.25)
        # A header that leaves less than a byte for each promised frame is lying, not cut short.
        lies = self.promised * self.rate > file_bytes
        if cut_short or (self._end_seen and seen < self.promised - tolerance and not lies):
            detail = f"ends after {seen:.2f} s of {self.promised:.2f} s, {frames} frames"
            raise VideoError("truncated", detail)

    def _fill(self, packets: int, size: int) -> None:
        """Read until so many packets or bytes are ahead, or the source ends; its error waits until they are used."""
        while len(self._ahead) < packets and self._ahead_bytes < size and not self._source_ended:
            try:
                packet = next(self._source, None)
            except (av.error.FFmpegError, IndexError) as error:
                self._source_error = error
                packet = None
            if packet is None:
                self._source_ended = True
                return
            tick = self._tick_seconds.get(packet.stream.index)
            if tick is None:
                tick = self._tick_seconds[packet.stream.index] = float(packet.time_base)
            if not packet.is_discard:
                self._note_shown(packet, tick)
            if packet.stream.index == self._stream.index:  # (stream_index is wrong on the flushing packet)
                self.hidden_packets += packet.is_discard
                if self._keep_times and packet.size and not packet.is_discard:
                    heapq.heappush(self._times, self._time_of(packet, tick))
                self._ahead.append(packet)
                self._ahead_bytes += packet.size

    def _note_shown(self, packet: Packet, tick: float) -> None:
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is None:
            return
        seconds = ticks * tick
        self._first_seen = seconds if self._first_seen is None else min(self._first_seen, seconds)
        self._end_seen = max(self._end_seen, seconds + (packet.duration or 0) * tick)

    def _time_of(self, packet: Packet, tick: float) -> float:
        """Seconds at which a packet's frame is shown, on a clock without discontinuities."""
        if packet.dts is not None:
            dts = packet.dts * tick + self._offset
            if self._last_dts is not None:
                step = dts - self._last_dts
                limit = max(LONGEST_STEP_SECONDS, 4 * self._step)
                if step < -limit or (step > limit and self._clock_may_leap):
                    self._offset += self._step - step
                    dts += self._step - step
                elif step > 0:
                    self._step = step
            self._last_dts = dts
        ticks = packet.dts if packet.pts is None or self._decode_order_only else packet.pts
        if ticks is None:
            self._last_noted += self._step
        else:
            self._last_noted = ticks * tick + self._offset
        return self._last_noted

    def _find_rate(self) -> float:
        if self._stream.frames and "mov" in self._container.format.name:
            return self._header_rates[0]
        for packets, size in ((AHEAD_PACKETS, AHEAD_BYTES), (MEASURE_PACKETS, MEASURE_BYTES)):
            self._fill(packets, size)
            measured = self._measure()
            for rate in self._header_rates:
                if not measured or any(abs(rate - other) <= CONFIRMED * other for other in measured):
                    return rate
        return min(max(measured[0], 0.01), 1000.0)

    def _measure(self) -> list[float]:
        """Frames over duration of what has been read, by timestamps and, of a whole file, by the header's duration."""
        times = sorted(self._times)
        whole = self._source_ended and self._source_error is None
        if not whole:  # between the last packets of what was read, others will be shown
            times = times[: -1 - self._stream.codec_context.reorder_depth]
        if len(times) < 2 or times[-1] == times[0]:
            return []
        rates = [(len(times) - 1) / (times[-1] - times[0])]
        if whole:
            rates = [len(times) / (times[-1] + self._step - times[0])]
            rates += [len(times) / self.promised] if self.promised else []
        return rates


def resample(frames: Iterator[ShownFrame], fps: float) -> Iterator[ShownFrame]:
    """The nearest frame to each tick of a clock at `fps` that starts with the first frame, at 0 seconds.

    Raises:
        VideoError: `timestamps`, at a gap of more than `LONGEST_GAP_SECONDS`.
    """
    tick, previous = 0, None
    for shown in frames:
        if previous is not None:
            step = shown.seconds - previous.seconds
            if step > LONGEST_GAP_SECONDS:
                gap = f"{step:.0f} s without a frame before frame {shown.number}"
                raise VideoError("timestamps", f"{gap}; longest allowed {LONGEST_GAP_SECONDS:.0f} s")
            border = (previous.seconds + shown.seconds) / 2 + min(TIE_SECONDS, step / 4)
            while tick / fps <= border:
                yield previous
                tick += 1
        previous = shown
    # A quarter of a tick absorbs rounded timestamps, so that resampling to the native rate changes nothing.
    while previous is not None and tick / fps <= previous.seconds + 0.25 / fps + TIE_SECONDS:
        yield previous
        tick += 1


def _exact(rate: float) -> float:
    """The whole rate, or the 1000/1001 of one, that a header's rounded durations stand for."""
    whole = [float(round(rate)), round(rate * 1.001) * 1000 / 1001]
    nearest = min(whole, key=lambda other: abs(other - rate))
    return nearest if abs(nearest - rate) <= HEADER_ROUNDING * rate else rate


def _promise(container: InputContainer, stream: VideoStream) -> tuple[float, bool]:
    """(seconds or 0, whether they are the stream's own word)."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), True
    tagged = _clock_seconds(stream.metadata.get("DURATION", ""))
    whole = (container.duration or 0) / av.time_base
    return (tagged, True) if tagged > 0 and (tagged <= whole or not whole) else (whole, False)


def _clock_seconds(text: str) -> float:
    """Seconds of Matroska's `hh:mm:ss.fraction` tag; 0 for anything else."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0
