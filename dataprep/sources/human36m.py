"""`cwm-dataprep human36m`: Human3.6M as its own mp4 files, or as the frames that Pavlakos et al. handed out.

    --videos DIR   S1/Videos/Directions 1.54138969.mp4          subjects 1 5 6 7 8 9 11, four cameras, 50 per second
    --frames DIR   S1_Directions_1.54138969_000001.jpg          flat or in folders; every fifth: numbers 1, 6, 11, ...
    --annot DIR    train.h5 train_images.txt valid.h5 valid_images.txt: joints in pixels, for --crop pose

One camera's recording is one source video. The paper crops a square around the person in every frame (`pose_box`), then
shrinks it with cv2's default; `--paper-exact` does the same. The crop follows the person and jitters with the joints.
"""

import argparse
import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cwm_hub.command_line import how_many
from dataprep.command_line import add_options, option, read_options
from dataprep.decode.frames import open_video
from dataprep.decode.pictures import FolderStore, PictureReader
from dataprep.decode.resize import Crop
from dataprep.decode.video_file import VideoError
from dataprep.official_lists import official_counts
from dataprep.sharding.command import add_arguments as add_common_arguments
from dataprep.sharding.command import make_shards, shard_config
from dataprep.sharding.ledger import Origin
from dataprep.sharding.plan import Failure, Listing, ShardConfig, SourceVideo, printable
from dataprep.sharding.worker import FrameReader
from dataprep.sources.id_lists import IdOptions, id_facts, keep_listed
from dataprep.sources.text_files import read_text

LICENCE = "Human3.6M licence (academic use); videos and frames may not be redistributed"
SUBJECTS = {1: "train", 5: "train", 6: "train", 7: "train", 8: "train", 9: "validation", 11: "validation"}
CAMERAS = ("54138969", "55011271", "58860488", "60457274")
KNOWN_MISSING = ("s11_directions", "54138969")
"""The one recording that nobody has: 840 less 1."""
ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether"),
)
SPELLINGS = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
NATIVE_FPS = 50.0
MARGIN, SIDE = 200, 1000
"""Pixels that the paper adds to the skeleton's box, and the picture that the square is kept inside."""

VIDEO_NAME = re.compile(r"(?P<action>[A-Za-z]+)(?: (?P<take>\d+))?\.(?P<camera>\d{8})\.mp4")
FRAME_NAME = re.compile(
    r"S(?P<subject>\d+)_(?P<action>[A-Za-z]+)(?:_(?P<take>\d+))?\.(?P<camera>\d{8})_(?P<number>\d{6})\.jpg"
)

LIST_NAME = re.compile(r"S(?P<subject>\d+)_(?P<action>[A-Za-z]+)(?:_(?P<take>\d+))?\.(?P<camera>\d{8})")

Boxes = dict[int, tuple[int, int, int, int]]
"""(left, top, width, height) by frame number, counted from 1 as in the file names."""


@dataclass(frozen=True, slots=True, order=True)
class Recording:
    """One camera's view of one take."""

    subject: int
    action: str
    take: str
    """A number, or "" for the take without one."""
    camera: str

    @property
    def scene(self) -> str:
        """The take, whatever the camera: `s01_walking-1`."""
        return f"s{self.subject:02d}_{self.action.lower()}{'-' if self.take else ''}{self.take}"

    @property
    def id(self) -> str:
        """`h36m_s01_walking-1_54138969`: no space and no dot, which readers of tars would cut the name at."""
        return f"h36m_{self.scene}_{self.camera}"

    @classmethod
    def parse(cls, match: re.Match[str], subject: int) -> "Recording | None":
        """None where subject, action or camera is none of the data set's."""
        action = SPELLINGS.get(match["action"], match["action"])
        if subject not in SUBJECTS or action not in ACTIONS or match["camera"] not in CAMERAS:
            return None
        return cls(subject, action, match["take"] or "", match["camera"])


@dataclass(frozen=True)
class Human36mOptions:
    """Options of this sub-command."""

    videos: str | None = option(None, metavar="DIR")
    """Folder of S1, S5, ... with Videos/*.mp4; this or --frames."""
    frames: str | None = option(None, metavar="DIR")
    """Folder of S1_Directions_1.54138969_000001.jpg, ..., nested or not."""
    annot: str | None = option(None, metavar="DIR")
    """Joints for --crop pose: train.h5, train_images.txt, valid.*"""
    crop: Literal["pose", "center", "full"] | None = None
    """None: pose with --annot, else center."""
    paper_exact: bool = False
    """As the paper: pose crop, cv2's bilinear to 64, every fifth frame."""

    def __post_init__(self) -> None:
        if (self.videos is None) == (self.frames is None):
            raise ValueError("give one of --videos and --frames")


EXAMPLES = (
    "cwm-dataprep human36m --frames FRAMES --annot ANNOT --paper-exact --out shards/human36m",
    "cwm-dataprep human36m --videos VIDEOS --crop center --out shards/human36m",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this sub-command's options."""
    add_options(parser, Human36mOptions)
    add_options(parser, IdOptions)
    add_common_arguments(parser, leave_out=("fit",), videos_per_shard=8, stride=5)


def run(args: argparse.Namespace) -> int:
    """List, plan, shard; returns the exit code."""
    options, ids = read_options(Human36mOptions, args), read_options(IdOptions, args).ids
    crop = "pose" if options.paper_exact else options.crop or ("pose" if options.annot else "center")
    if crop == "pose" and not options.annot:
        raise ValueError("the pose crop needs the joints: give --annot, or choose --crop center or full")
    boxes = read_boxes(Path(options.annot)) if crop == "pose" and options.annot else None
    if options.videos is not None:
        listing = list_videos(Path(options.videos), boxes)
    else:
        listing = list_frames(Path(options.frames or ""), boxes)
    listing = keep_listed(listing, ids, listed_id)
    exact = {"size": 64, "resize": "official", "stride": 5, "fps": None} if options.paper_exact else {}
    fit = "center-crop" if crop == "center" else "squash"
    form = {
        "form": "videos" if options.videos else "frames",
        "crop": crop,
        "paper_exact": options.paper_exact,
    }
    config = shard_config(args, "human36m", form | id_facts(ids), **exact, fit=fit)
    if options.frames and config.decode.fps is not None:
        raise ValueError("--fps resamples videos; frames are thinned with --stride")
    opener = open_recording if options.videos else open_pictures
    return make_shards(args, listing, config, opener=opener, origin=Origin(LICENCE, redistributable=False))


def list_videos(directory: Path, boxes: Mapping[Recording, Boxes] | None = None) -> Listing:
    """Every recording below `directory` by its name, with its boxes where they are given.

    Raises:
        ValueError: The directory is missing.
    """
    places: dict[Recording, list[Path]] = {}
    strange = 0
    for path in _walk(directory, ".mp4"):
        recording = _of_video(path)
        if recording is None:
            strange += 1
        else:
            places.setdefault(recording, []).append(path)
    notes = [f"{strange} mp4 files with other names were left alone"] if strange else []
    originals = {one: [p for p in paths if p.parent.name == "Videos"] for one, paths in places.items()}
    if any(originals.values()):  # background masks lie beside them under the same names
        others = {path for one, paths in places.items() for path in paths if path not in originals[one]}
        places = {one: paths for one, paths in originals.items() if paths}
        if others:
            folders = ", ".join(sorted({path.parent.name for path in others}))
            notes.append(
                f"recordings are there twice: Videos is used, {how_many(len(others), 'file')} in {folders} left alone"
            )
    for paths in places.values():
        if len(paths) > 1:
            raise ValueError(
                f"{paths[0]} and {paths[1]} are of the same recording: keep one of them in a Videos folder"
            )
    found = {}
    for recording, (path,) in places.items():
        shown = printable(os.path.relpath(path, directory))
        found[recording] = _source(recording, str(path.absolute()), shown, path.stat().st_size)
    return _listing(found, boxes, notes)


def listed_id(name: str) -> str | None:
    """`S9_Directions_1.54138969`, alone or before a picture's number, or the path of a video -> the recording's id."""
    path = Path(name)
    if name.startswith("h36m_"):
        return name
    match = LIST_NAME.match(path.name)
    recording = Recording.parse(match, int(match["subject"])) if match else _of_video(path)
    return None if recording is None else recording.id


def _of_video(path: Path) -> Recording | None:
    match = VIDEO_NAME.fullmatch(path.name)
    folders = [part for part in path.parent.parts if re.fullmatch(r"S\d+", part)]
    return Recording.parse(match, int(folders[-1][1:])) if match and folders else None


def list_frames(directory: Path, boxes: Mapping[Recording, Boxes] | None = None) -> Listing:
    """Every recording whose pictures lie below `directory`, by their names and whatever their folders.

    Raises:
        ValueError: The directory is missing.
    """
    numbers: dict[tuple[Recording, str, str], dict[int, int]] = {}
    strange = 0
    for path in _walk(directory, ".jpg"):
        match = FRAME_NAME.fullmatch(path.name)
        recording = Recording.parse(match, int(match["subject"])) if match else None
        if match is None or recording is None:
            strange += 1
            continue
        pattern = path.name[: match.start("number")].replace("%", "%%") + "%06d.jpg"
        place = (recording, str(path.parent.absolute()), pattern)
        numbers.setdefault(place, {})[int(match["number"])] = path.stat().st_size
    found: dict[Recording, SourceVideo] = {}
    notes = [f"{strange} pictures with other names were left alone"] if strange else []
    for (recording, folder, pattern), sizes in sorted(numbers.items()):
        if recording in found:
            notes.append(
                f"{recording.id} is there twice: {found[recording].path} is used, "
                f"{len(sizes)} pictures in {folder} were left alone"
            )
            continue
        shown = printable(os.path.relpath(os.path.join(folder, pattern), directory))  # noqa: PTH118
        options = (("pattern", pattern), ("numbers", sorted(sizes)))
        found[recording] = _source(recording, folder, shown, sum(sizes.values()), options)
    return _listing(found, boxes, notes)


def pose_box(joints: np.ndarray) -> tuple[int, int, int, int]:
    """The paper's crop for one frame's joints [J, 2] (x, y in pixels): (left, top, width, height).

    A square around the middle of the joints' box, its side the longer side of that box plus `MARGIN`, at most `SIDE`;
    moved to lie inside `SIDE` x `SIDE`, then its edges truncated to whole pixels.
    """
    low, high = joints.min(axis=0), joints.max(axis=0)
    side = min(float((high - low).max()) + MARGIN, float(SIDE))
    start = ((low + high) / 2 - side / 2).clip(0, SIDE - side)
    (left, top), (right, bottom) = start.astype(int), (start + side).astype(int)
    return int(left), int(top), int(right - left), int(bottom - top)


def read_boxes(annotations: Path) -> dict[Recording, Boxes]:
    """Boxes of every recording in the annotation files, `part` [N, J, 2] beside N picture names.

    Raises:
        ValueError: A file is missing or damaged, the two disagree, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "reading the joints needs h5py: pip install 'cwm-hub[h5]', or choose --crop center"
        ) from error
    boxes: dict[Recording, Boxes] = {}
    stems = [stem for stem in ("train", "valid") if (annotations / f"{stem}.h5").is_file()]
    if not stems:
        raise ValueError(f"{annotations} holds neither train.h5 nor valid.h5")
    for stem in stems:
        try:
            names = read_text(annotations / f"{stem}_images.txt").split()
            with h5py.File(annotations / f"{stem}.h5") as file:
                joints = np.asarray(file["part"], np.float64)
        except (OSError, KeyError) as error:
            raise ValueError(f"cannot read the annotations {annotations / stem}.*: {error}") from error
        if joints.ndim != 3 or joints.shape[2] != 2 or len(joints) != len(names):
            raise ValueError(
                f"{annotations / stem}.h5: expected part of [{len(names)}, J, 2], got {list(joints.shape)}"
            )
        for name, skeleton in zip(names, joints, strict=True):
            match = FRAME_NAME.fullmatch(name)
            recording = Recording.parse(match, int(match["subject"])) if match else None
            if match is not None and recording is not None:
                boxes.setdefault(recording, {})[int(match["number"])] = pose_box(skeleton)
    return boxes


def open_recording(source: SourceVideo, config: ShardConfig) -> FrameReader:
    """Opener of an mp4: frame number n of the annotations is frame n - 1 of the video."""
    crop = _crop(source)
    if crop is None:
        return open_video(source.path, config.decode)
    return open_video(
        source.path, config.decode, crop=lambda index, width, height: crop(index + 1, width, height)
    )


def open_pictures(source: SourceVideo, config: ShardConfig) -> FrameReader:
    """Opener of a recording's pictures; stride counts frames of the camera, of which 1, 6, 11, ... were kept."""
    options: dict[str, Any] = dict(source.options)
    stride = config.decode.stride
    numbers = [n for n in options["numbers"] if (n - 1) % stride == 0 and n > config.decode.skip_head]
    store = FolderStore(source.path, options["pattern"])
    fps = NATIVE_FPS / max(stride, _step(options["numbers"]))
    return PictureReader(store, numbers, config.decode, fps=fps, crop=_crop(source))


def _crop(source: SourceVideo) -> Crop | None:
    boxes = dict(source.options).get("boxes")
    if boxes is None:
        return None
    by_number = {number: (left, top, width, height) for number, left, top, width, height in boxes}

    def crop(number: int, width: int, height: int) -> tuple[int, int, int, int]:
        if number not in by_number:
            raise VideoError("annot_missing", f"no joints for frame {number}")
        return by_number[number]

    return crop


def _step(numbers: list[int]) -> int:
    """Distance of successive pictures, in frames of the camera."""
    return min((b - a for a, b in itertools.pairwise(numbers)), default=1)


def _walk(directory: Path, suffix: str) -> Iterator[Path]:
    if not directory.is_dir():
        raise ValueError(f"there is no directory {directory}")
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted(files):
            if name.endswith(suffix):
                path = Path(folder, name)
                if path.is_file():
                    yield path


def _source(
    recording: Recording, path: str, shown: str, size: int, options: tuple[tuple[str, Any], ...] = ()
) -> SourceVideo:
    split, label = SUBJECTS[recording.subject], ACTIONS.index(recording.action)
    return SourceVideo(
        recording.id, path, shown, split, label, recording.action, size, options, recording=recording.scene
    )


def _listing(
    found: dict[Recording, SourceVideo], boxes: Mapping[Recording, Boxes] | None, notes: list[str]
) -> Listing:
    """Add the boxes, and name what the four cameras should have seen and did not."""
    failures = []
    sources = []
    for recording, source in sorted(found.items()):
        if boxes is None:
            sources.append(source)
        elif recording not in boxes:
            failures.append(Failure(source.source_path, "annot_missing", "no joints for this recording"))
        else:
            rows = [[number, *box] for number, box in sorted(boxes[recording].items())]
            options = (*source.options, ("boxes", rows))
            sources.append(dataclasses.replace(source, options=options))
    scenes = {recording.scene: recording for recording in found}
    present = {(recording.scene, recording.camera) for recording in found}
    for scene in sorted(scenes):
        for camera in CAMERAS:
            if (scene, camera) == KNOWN_MISSING and (scene, camera) not in present:
                notes.append(f"{scene}, camera {camera}: known to be missing everywhere")
            elif (scene, camera) not in present:
                failures.append(
                    Failure(f"h36m_{scene}_{camera}", "missing_file", "other cameras saw this take")
                )
    splits = {source.split for source in sources}
    counts = {split: count for split, count in official_counts("human36m").items() if split in splits}
    return Listing(tuple(sources), tuple(failures), tuple(notes), counts)
