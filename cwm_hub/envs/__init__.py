"""Environments: pixel tasks by name, each simulator imported only when one of its tasks is made."""

from typing import TYPE_CHECKING

from cwm_hub import lazy_names

if TYPE_CHECKING:
    from cwm_hub.envs.rendering import FrameRenderer as FrameRenderer
    from cwm_hub.envs.rendering import RenderingError as RenderingError
    from cwm_hub.envs.rendering import gl_problem as gl_problem
    from cwm_hub.envs.table import EnvConfig as EnvConfig
    from cwm_hub.envs.table import list_envs as list_envs
    from cwm_hub.envs.table import make_env as make_env
    from cwm_hub.envs.table import register_env as register_env

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EnvConfig": "cwm_hub.envs.table",
        "FrameRenderer": "cwm_hub.envs.rendering",
        "RenderingError": "cwm_hub.envs.rendering",
        "gl_problem": "cwm_hub.envs.rendering",
        "list_envs": "cwm_hub.envs.table",
        "make_env": "cwm_hub.envs.table",
        "register_env": "cwm_hub.envs.table",
    },
)
