"""Clips: batches of windows drawn from shards, the same for any number of processes and resumed exactly."""

from typing import TYPE_CHECKING

from cwm_hub import lazy_names

if TYPE_CHECKING:
    from cwm_hub.clips.clip_index import ClipSource as ClipSource
    from cwm_hub.clips.loader import ClipBatch as ClipBatch
    from cwm_hub.clips.loader import ClipLoader as ClipLoader
    from cwm_hub.clips.loader import validation_windows as validation_windows
    from cwm_hub.clips.retries import FetchConfig as FetchConfig

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ClipBatch": "cwm_hub.clips.loader",
        "ClipLoader": "cwm_hub.clips.loader",
        "ClipSource": "cwm_hub.clips.clip_index",
        "FetchConfig": "cwm_hub.clips.retries",
        "validation_windows": "cwm_hub.clips.loader",
    },
)
