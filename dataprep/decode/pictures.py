"""Read a video that was unpacked into numbered pictures, from a folder or straight from a zip file.

The counterpart of `frames` for data sets that are handed out as frames (Human3.6M by Pavlakos et al., YouTube driving
by ACO): the same interface to the worker, the same reasons for refusal, the same resize. A picture keeps the number in
its name, and stride counts in those numbers, as the paper's code does.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from cwm_hub.shards.arrays import Arrays
from cwm_hub.shards.codecs import Frames
from cwm_hub.shards.scaling import center_square, resize_image
from dataprep.decode.frames import DecodeSettings
from dataprep.decode.resize import Crop
from dataprep.decode.video_file import VideoError

LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip: magic, ..., length of name, length of extra
STORED, DEFLATED = 0, 8


class PictureStore(Protocol):
    """Where numbered pictures are."""

    def read(self, number: int) -> bytes:
        """The file of picture `number`; OSError where it is gone."""

    def close(self) -> None:
        """Let go of what is held open."""


class FolderStore:
    """Pictures in a folder, named by a pattern such as `S1_Eating_1.55011271_%06d.jpg`."""

    def __init__(self, folder: str, pattern: str):
        self._folder = Path(folder)
        self._pattern = pattern

    def read(self, number: int) -> bytes:
        """The file of picture `number`; OSError where it is gone."""
        return (self._folder / (self._pattern % number)).read_bytes()

    def close(self) -> None:
        """Nothing is held open."""


class ZipStore:
    """Pictures in a zip, found by the places that its directory gave when the set was listed."""

    def __init__(self, path: str, places: Sequence[tuple[int, int, int, int]]):
        """`places`: (number, offset of the local header, packed bytes, method) for each picture."""
        self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115  (closed by close)
        self._places = {number: (offset, size, method) for number, offset, size, method in places}

    def read(self, number: int) -> bytes:
        """The unpacked picture; OSError where the zip was changed since it was listed."""
        offset, size, method = self._places[number]
        self._file.seek(offset)
        header = self._file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise OSError(f"no zip entry at byte {offset}")
        _, name, extra = LOCAL_HEADER.unpack(header)
        self._file.seek(name + extra, io.SEEK_CUR)
        data = self._file.read(size)
        if method == DEFLATED:
            try:
                return zlib.decompress(data, -zlib.MAX_WBITS)
            except zlib.error as error:
                raise OSError(f"damaged zip entry at byte {offset}") from error
        return data

    def close(self) -> None:
        """Close the zip."""
        self._file.close()


class PictureReader:
    """Iterates the kept pictures as u8 [H, W, 3]; the `FrameReader` of a worker."""

    def __init__(
        self,
        store: PictureStore,
        numbers: Sequence[int],
        settings: DecodeSettings,
        *,
        fps: float,
        crop: Crop | None = None,
    ):
        """Set up without reading.

        Args:
            store: Where the pictures are.
            numbers: Which of them to use, in order; stride and skipped head have been applied.
            settings: Output size, resize, fit and limits.
            fps: Of the pictures used, per second.
            crop: Per-picture crop by number; replaces `settings.fit`.
        """
        self.output_fps = fps
        self.source_frames = 0
        self.arrays: Arrays | None = None
        """Logged beside the frames, a row for each that is yielded."""
        self.alive: Callable[[], None] = lambda: None
        """Called for every picture that was read."""
        self._store = store
        self._numbers = numbers
        self._settings = settings
        self._crop = crop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._store.close()

    def __iter__(self) -> Iterator[Frames]:
        settings = self._settings
        allowed = settings.max_damaged_share * len(self._numbers)
        damaged: list[str] = []
        for number in self._numbers:
            self.alive()
            try:
                pixels = self._decode(number)
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                damaged.append(f"picture {number}: {error}")
                if len(damaged) > allowed:
                    raise VideoError(
                        "decode_error", f"{len(damaged)} damaged pictures, {damaged[0]}"
                    ) from error
                continue
            self.source_frames += 1
            yield self._shrink(pixels, number)
        if self.source_frames < settings.min_frames:
            raise VideoError("too_short", f"{self.source_frames} < {settings.min_frames} frames")

    def _decode(self, number: int) -> Frames:
        with Image.open(io.BytesIO(self._store.read(number)), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > self._settings.max_pixels:
                detail = f"{picture.width}x{picture.height} is more than {self._settings.max_pixels} pixels"
                raise VideoError("too_large", detail)
            return np.asarray(picture.convert("RGB"))

    def _shrink(self, pixels: Frames, number: int) -> Frames:
        height, width = pixels.shape[:2]
        if self._crop is not None:
            left, top, width, height = self._crop(number, width, height)
            pixels = pixels[top : top + height, left : left + width]
        elif self._settings.fit == "center-crop":
            left, top, width, height = center_square(width, height)
            pixels = pixels[top : top + height, left : left + width]
        return resize_image(pixels, self._settings.size, self._settings.resize)
