"""Hub: checkpoints by name, their format, their cards, and the weights of the official code."""

from typing import TYPE_CHECKING

from cwm_hub import lazy_names

if TYPE_CHECKING:
    from cwm_hub.hub.catalogue import embedded_names as embedded_names
    from cwm_hub.hub.checkpoint import Checkpoint as Checkpoint
    from cwm_hub.hub.checkpoint import CheckpointError as CheckpointError
    from cwm_hub.hub.names import find_checkpoint as find_checkpoint
    from cwm_hub.hub.names import verify as verify
    from cwm_hub.hub.official_export import export_official as export_official
    from cwm_hub.hub.official_weights import load_official as load_official
    from cwm_hub.hub.pretrained import from_pretrained as from_pretrained
    from cwm_hub.hub.pretrained import push_to_hub as push_to_hub
    from cwm_hub.hub.saving import save_pretrained as save_pretrained

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Checkpoint": "cwm_hub.hub.checkpoint",
        "CheckpointError": "cwm_hub.hub.checkpoint",
        "embedded_names": "cwm_hub.hub.catalogue",
        "export_official": "cwm_hub.hub.official_export",
        "find_checkpoint": "cwm_hub.hub.names",
        "from_pretrained": "cwm_hub.hub.pretrained",
        "load_official": "cwm_hub.hub.official_weights",
        "push_to_hub": "cwm_hub.hub.pretrained",
        "save_pretrained": "cwm_hub.hub.saving",
        "verify": "cwm_hub.hub.names",
    },
)
