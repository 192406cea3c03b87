"""The data set card of a shard directory: its manifest and measured statistics laid out by `cards/dataset_card.md`."""

import json
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from cwm_hub.hub_client.cards import BEGIN, END, code, inert, template
from cwm_hub.shards.codecs import EXTENSIONS
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.moving import STILL
from dataprep.sharding.plan import WINDOW_FRAMES

CODEC_WORDS = {
    "h264": "H.264 tuned for decoding",
    "jpeg": "JPEG film strips",
    "raw": "raw uint8",
}
HUB_LICENCES = (
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "mit",
    "unlicense",
)
"""Licences that the Hub knows by name and that let others publish; everything else is `other`."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(
    manifest: Manifest,
    stats: dict[str, Any],
    *,
    repository: str,
    title: str,
    with_clips: bool = True,
    preview: str | None = None,
) -> str:
    """README.md of the data set repository.

    Args:
        manifest: Of the shard directory.
        stats: What `stats.measure` found in it.
        repository: `owner/name`, or the local folder, as readers will name it.
        title: Heading.
        with_clips: Whether the shards are published, or only what is known of them.
        preview: Path of the contact sheet inside the repository.
    """
    config = manifest.config
    clips = sum(record.samples for record in manifest.shards)
    first_split, first_shards = next(iter(manifest.splits.items()))
    location = (
        f"hf://datasets/{repository}"
        if "/" in repository and not repository.startswith((".", "/"))
        else repository
    )
    return DatasetCard.from_template(
        _header(manifest, clips, title, with_clips),
        template_path=str(template("dataset_card.md")),
        begin=BEGIN,
        end=END,
        title=inert(title),
        stats=inert(stats),
        clips=f"{clips:,}",
        size=manifest.image_size,
        codec_words=CODEC_WORDS[manifest.codec],
        origin=code(manifest.name),
        with_clips=with_clips,
        preview=preview,
        max_clip_frames=inert(config.get("max_clip_frames", 256)),
        overlap_frames=inert(config.get("overlap_frames", WINDOW_FRAMES - 1)),
        spreads={
            "frames a video": stats["video_frames"],
            "seconds a video": stats["video_seconds"],
            "motion": stats["motion"],
            **({"moving": stats["moving"]} if stats["moving"] else {}),
            "luma (0-255)": stats["luma"],
        },
        still=STILL,
        extension=EXTENSIONS[manifest.codec],
        streams=manifest.codec == "h264",
        location=json.dumps(location),
        repository=json.dumps(repository),
        window_frames=WINDOW_FRAMES,
        first_split=json.dumps(first_split),
        first_tar=json.dumps(_url(location, first_shards[0].file)),
        plan_hash=code(manifest.plan_hash or "none"),
        versions=inert(manifest.versions),
        config_json=json.dumps(config, indent=1, ensure_ascii=False),
        licence_text=_licence_text(manifest),
    ).content


def _header(manifest: Manifest, clips: int, title: str, with_clips: bool) -> DatasetCardData:
    licence = manifest.licence.lower()
    known = manifest.redistributable and licence in HUB_LICENCES
    extra: dict[str, Any] = {} if known else {"license_name": _slug(manifest.licence)}
    if with_clips:
        files = [{"split": split, "path": f"data/{split}-*.tar"} for split in manifest.splits]
        extra["configs"] = [{"config_name": "default", "data_files": files}]
    if with_clips and not manifest.redistributable:
        extra["extra_gated_prompt"] = (
            f"The clips are frames of videos under this licence: {inert(manifest.licence)}. "
            "By asking for access you state that you hold that licence yourself."
        )
    return DatasetCardData(
        license=licence if known else "other",
        task_categories=["video-classification"] if manifest.codec == "h264" else [],
        size_categories=next((words for limit, words in SIZES if clips < limit), "n>1M"),
        pretty_name=" ".join(title.split()),
        tags=["webdataset", "video", "world-model", "contextwm", "arxiv:2305.18499"],
        **extra,
    )


def _licence_text(manifest: Manifest) -> str:
    licence = inert(manifest.licence)
    if manifest.redistributable:
        return f"Source videos: {licence}. The clips stay under the licence of the videos they were cut from."
    return (
        f"Source videos: {licence}. Nothing is recorded here that lets others publish frames of them: "
        "get the videos from their owner, under their terms."
    )


def _url(location: str, file: str) -> str:
    """Address of a tar that webdataset opens: it has no `hf://`."""
    if location.startswith("hf://datasets/"):
        return (
            f"https://huggingface.co/datasets/{location.removeprefix('hf://datasets/')}/resolve/main/{file}"
        )
    return f"{location.rstrip('/')}/{file}"


def _slug(text: str) -> str:
    """A licence's name in the form that the Hub asks for."""
    words = "".join(c if c.isalnum() else "-" for c in text.lower())
    return "-".join(filter(None, words.split("-")))[:60].strip("-") or "unknown"
