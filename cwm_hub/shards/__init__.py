"""Shard format v1: a directory of plain tars that is also a valid Hub dataset repository.

    ROOT/data/train-00000-of-00004.tar   samples `{key}.mp4` (or `.jpg`, `.u8`) + `{key}.json`, nothing else in data/;
                                         since 1.1 between the two, where something was logged, `{key}.npz` (`arrays`)
    ROOT/meta/manifest.json              per shard: samples, frames, bytes, sha256; config, versions, plan hash
    ROOT/meta/index.parquet              one row a clip with its byte offset, so a local loader reads one window, and its cuts
    ROOT/meta/failures.jsonl             one line for every source video that gave no clip, with the reason

Every json has the same fields and no nulls (a label that is unknown is -1, a text ""), because readers infer the
columns of the whole set from its first samples. Tars carry no clock and no owner: the same clips give the same bytes.
Written with the standard library, read by anything that reads WebDataset; nothing here imports torch.
`root` may be a local path or any fsspec URL wherever something is read or a small file is written.
"""

from typing import TYPE_CHECKING

from cwm_hub import lazy_names

if TYPE_CHECKING:
    from cwm_hub.shards.arrays import decode_arrays as decode_arrays
    from cwm_hub.shards.arrays import encode_arrays as encode_arrays
    from cwm_hub.shards.codecs import ShardError as ShardError
    from cwm_hub.shards.codecs import decode_clip as decode_clip
    from cwm_hub.shards.codecs import decoder as decoder
    from cwm_hub.shards.codecs import encode_clip as encode_clip
    from cwm_hub.shards.index import ClipRow as ClipRow
    from cwm_hub.shards.index import read_index as read_index
    from cwm_hub.shards.manifest import Manifest as Manifest
    from cwm_hub.shards.manifest import ShardRecord as ShardRecord
    from cwm_hub.shards.manifest import shard_name as shard_name
    from cwm_hub.shards.storage import Root as Root
    from cwm_hub.shards.writer import EncodedClip as EncodedClip
    from cwm_hub.shards.writer import ShardWriter as ShardWriter

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ClipRow": "cwm_hub.shards.index",
        "EncodedClip": "cwm_hub.shards.writer",
        "Manifest": "cwm_hub.shards.manifest",
        "Root": "cwm_hub.shards.storage",
        "ShardError": "cwm_hub.shards.codecs",
        "ShardRecord": "cwm_hub.shards.manifest",
        "ShardWriter": "cwm_hub.shards.writer",
        "decode_arrays": "cwm_hub.shards.arrays",
        "decode_clip": "cwm_hub.shards.codecs",
        "decoder": "cwm_hub.shards.codecs",
        "encode_arrays": "cwm_hub.shards.arrays",
        "encode_clip": "cwm_hub.shards.codecs",
        "read_index": "cwm_hub.shards.index",
        "shard_name": "cwm_hub.shards.manifest",
    },
)
