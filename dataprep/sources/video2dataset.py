"""A folder as video2dataset leaves it: `00000.tar` with the videos, `00000.parquet` and `00000_stats.json` beside it.

The parquet repeats the texts of the tar and holds no video, so the tars alone are read. A download that failed is a
sample without a video.
"""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataprep.sources.folder import VIDEO_SUFFIXES


def find_tars(folder: Path) -> list[Path]:
    """The tars of `folder` and of the folders in it that have a parquet file of their name beside them, in order."""
    found = sorted([*folder.glob("*.tar"), *folder.glob("*/*.tar")])
    return [path for path in found if path.with_suffix(".parquet").is_file()]


def load_tars(tars: Sequence[Path]) -> Mapping[str, Any]:
    """Their samples as a streamed `datasets` data set with the one split `train`.

    Raises:
        ValueError: no tar holds a video, or one is damaged.
    """
    import datasets

    # told beforehand, because `datasets` refuses to infer them where one of the first samples has no video
    features = datasets.Features(
        {
            _video_field(tars): datasets.Video(decode=False),
            "txt": datasets.Value("string"),
            "json": datasets.Json(),
            "__key__": datasets.Value("string"),
            "__url__": datasets.Value("string"),
        }
    )
    files = {"train": [str(path) for path in tars]}
    return datasets.load_dataset("webdataset", data_files=files, features=features, streaming=True)


def _video_field(tars: Sequence[Path]) -> str:
    for path in tars:
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    suffix = f".{member.name.rpartition('.')[2]}"
                    if suffix in VIDEO_SUFFIXES:
                        return suffix[1:]
        except (OSError, tarfile.TarError) as error:
            raise ValueError(f"cannot read {path}: {error}") from error
    raise ValueError(f"the tars beside {tars[0]} hold no video")
