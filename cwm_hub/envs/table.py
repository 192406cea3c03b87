"""Pixel environments by name: `make_env("metaworld:reach")`, `make_env("gym:Reacher-v5")`, `make_env("mine:task")`.

All speak gymnasium's API with uint8 [H, W, 3] observations and actions in [-1, 1]. A simulator is imported only
when one of its tasks is made. A name is `suite` or `suite:task`; the suites are those of the table below, those of
`register_env`, and `module:factory` for any function that can be imported.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cwm_hub import missing_extra
from cwm_hub.config import check_range, nearest
from cwm_hub.envs.rendering import QualityName, RenderingError, gl_problem

if TYPE_CHECKING:
    import gymnasium

    from cwm_hub.envs.pixel_env import PixelEnv, Simulator

MOST_PIXELS = 4096
"""A side of more is a slip of the hand that would only exhaust the machine."""
Maker = Callable[..., "Simulator | gymnasium.Env[Any, Any]"]
"""`maker(task, *, image_size, quality, **options)`: a simulator, or a gymnasium environment with pixels. `quality` is
for `FrameRenderer`."""


@dataclass(frozen=True)
class EnvConfig:
    """A task and how it is seen."""

    name: str = "metaworld:reach"
    """`suite:task`, such as `metaworld:reach`, `scenes`, `dmcr:walker_run`, `gym:Reacher-v5` or `my_module:factory`."""
    image_size: int = 64
    """Side of the square frame in pixels (paper: 64)."""
    action_repeat: int = 1
    """Environment frames per agent step; rewards are summed, the last frame is drawn (paper: 1 on Meta-world, 2 on
    DMC Remastered)."""
    episode_frames: int | None = None
    """Episode length in environment frames; None keeps the task's own (Meta-world 500, DMC 1000)."""
    render_quality: QualityName = "auto"
    """exact, close, fast or flat; `auto` is exact on a GPU and close where the CPU draws. MuJoCo tasks only."""
    options: dict[str, Any] = field(default_factory=dict)
    """What else the suite's maker takes, such as `{camera: side}`."""

    def __post_init__(self) -> None:
        """Refuse sizes and lengths below 1."""
        lengths = () if self.episode_frames is None else ("episode_frames",)
        check_range(self, "image_size", "action_repeat", *lengths, at_least=1)
        check_range(self, "image_size", at_most=MOST_PIXELS)


def evaluation_env(env: EnvConfig, options: Mapping[str, Any]) -> EnvConfig:
    """A task of training as evaluations play it, which may have options of their own."""
    return replace(env, options={**env.options, **options})


@dataclass(frozen=True)
class Suite:
    """A row of the table."""

    maker: str | Maker
    """`module:function`, imported when a task is made, or the function itself."""
    tasks: tuple[str, ...] = ()
    """Tasks that `list_envs` names; the maker may take more."""
    needs_gl: bool = True
    """Whether every task of it draws with MuJoCo, which needs headless GL."""
    several: bool = True
    """Whether a process may play several environments alike; not where they are one server's."""


SUITES = {
    "dummy": Suite("cwm_hub.envs.dummy:make", needs_gl=False),
    "scenes": Suite("cwm_hub.envs.scenes:make", needs_gl=False),
    "metaworld": Suite(
        "cwm_hub.envs.metaworld:make",
        ("lever-pull", "drawer-open", "door-lock", "button-press-topdown-wall", "reach", "dial-turn"),
    ),
    "dmc": Suite("cwm_hub.envs.dm_control:make", ("cheetah_run", "hopper_stand", "walker_run")),
    "dmcr": Suite("cwm_hub.envs.dmc_remastered:make", ("cheetah_run", "hopper_stand", "walker_run")),
    "road": Suite(
        "cwm_hub.envs.driving.kinematic:make", ("highway", "highway_wet_sunset", "highway_changing")
    ),
    "carla": Suite(
        "cwm_hub.envs.driving.carla:make",
        ("highway", "highway_wet_sunset", "highway_changing"),
        needs_gl=False,
        several=False,
    ),
    "gym": Suite("cwm_hub.envs.gym_adapter:make", ("Reacher-v5",), needs_gl=False),
}
"""Suite name -> its row; those with tasks are the paper's (Meta-world, DMC) or an example (gym)."""

_registered: dict[str, Suite] = {}


def register_env(name: str, maker: Maker, *, tasks: tuple[str, ...] = (), needs_gl: bool = False) -> None:
    """Adds a suite of this process: `make_env("NAME")` and `make_env("NAME:task")` then call the maker.

        def maker(task, *, image_size, quality):
            return MyEnv(task)          # any gymnasium environment that draws, or a `Simulator`

        register_env("mine", maker)

    A recipe is another process: there, name the maker by its place, `--env.name my_module:maker`, which needs no
    registration.

    Args:
        name: of the suite; without a colon.
        maker: called with the task ("" where the name has none), `image_size` in pixels, `quality` of rendering and
            whatever `EnvConfig.options` holds.
        tasks: for `list_envs`.
        needs_gl: refuse on a machine without headless GL, in one sentence, before the maker is called.

    Raises:
        ValueError: the name is taken, or has a colon.
    """
    if ":" in name or not name:
        raise ValueError(f"a suite's name has no colon and is not empty, got {name!r}")
    if name in SUITES or name in _registered:
        raise ValueError(f"there is a suite {name!r} already")
    _registered[name] = Suite(maker, tasks, needs_gl)


def make_env(
    name: str,
    *,
    image_size: int = 64,
    action_repeat: int = 1,
    episode_frames: int | None = None,
    render_quality: QualityName = "auto",
    options: dict[str, Any] | None = None,
) -> "PixelEnv":
    """An environment of `EnvConfig`'s fields; every reset needs its own seed to be reproducible.

    Raises:
        ValueError: the name is not one of `list_envs()`' forms, a size or length is below 1, or the suite's maker does
            not know an option.
        RenderingError: the task needs headless GL and this machine has none.
    """
    try:
        from cwm_hub.envs.gym_adapter import as_simulator
        from cwm_hub.envs.pixel_env import PixelEnv
    except ModuleNotFoundError as error:
        raise ImportError(missing_extra(error), name=error.name) from error
    EnvConfig(name, image_size, action_repeat, episode_frames)  # refuses what is out of range
    if episode_frames is not None and episode_frames % action_repeat:
        raise ValueError(
            f"episode_frames={episode_frames} is not a multiple of action_repeat={action_repeat}"
        )
    suite, task = find_suite(name)
    if suite.needs_gl and (problem := gl_problem()) is not None:
        raise RenderingError(problem)
    maker = _load(suite.maker) if isinstance(suite.maker, str) else suite.maker
    made = _call(maker, name, task, options or {}, image_size=image_size, quality=render_quality)
    simulator = as_simulator(made, image_size=image_size, quality=render_quality)
    return PixelEnv(
        simulator, image_size=image_size, action_repeat=action_repeat, episode_frames=episode_frames
    )


def find_suite(name: str) -> tuple[Suite, str]:
    """The row that a name belongs to, and the rest of the name.

    Raises:
        ValueError: there is none.
    """
    head, _, task = name.partition(":")
    suites = SUITES | _registered
    if head in suites and (task or not suites[head].tasks):
        return suites[head], task
    if task.isidentifier() and head not in suites and _is_module(head):
        return Suite(name, needs_gl=False), ""
    hint = nearest(name, list_envs()) or nearest(head, suites)
    raise ValueError(
        f"unknown environment {name!r}{hint}: expected one of {', '.join(list_envs())}, another task of these suites, "
        "gym:ID of any gymnasium environment, or module:factory"
    )


def plays_several(name: str) -> bool:
    """Whether several environments of this name may be played at once: all but those that are one server's."""
    suite = (SUITES | _registered).get(name.partition(":")[0])
    return suite is None or suite.several


def check_several(name: str, setting: str) -> None:
    """Refuse to play several environments of a task at once where they would be one server's.

    Args:
        name: of the environment.
        setting: what asks for it.

    Raises:
        ValueError: it cannot be.
    """
    if not plays_several(name):
        raise ValueError(f"{name} plays one episode at a time on its server: set {setting} to 1")


def names_code(name: str) -> bool:
    """Whether making this environment imports a module that its name chooses: `module:factory`, `gym:module:ID`."""
    head, _, task = name.partition(":")
    return head not in SUITES | _registered or (head == "gym" and ":" in task)


def list_envs() -> list[str]:
    """The names of suites without tasks, and of the listed tasks of the others, which take more than these."""
    return [
        f"{name}:{task}" if task else name
        for name, suite in (SUITES | _registered).items()
        for task in suite.tasks or ("",)
    ]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of a parent that is no package
        return False


def _load(place: str) -> Maker:
    module, _, function = place.partition(":")
    try:
        maker: Maker = getattr(importlib.import_module(module), function)
    except AttributeError:
        raise ValueError(f"environment {place!r}: {module} has no {function!r}") from None
    if not callable(maker):
        raise ValueError(
            f"environment {place!r}: {function} of {module} is no function but a {type(maker).__name__}"
        )
    return maker


def _call(
    maker: Maker, name: str, task: str, options: dict[str, Any], *, image_size: int, quality: QualityName
) -> Any:
    import inspect

    own = ("task", "image_size", "quality")
    try:
        signature = inspect.signature(maker)
        signature.bind(task, image_size=image_size, quality=quality)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"environment {name}: what makes it is called as maker(task, image_size=..., quality=...), which it does not take ({error})"
        ) from error
    parameters = signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [option for option in options if option in own or (option not in parameters and not takes_any)]
    if unknown:
        known = [option for option in parameters if option not in own]
        raise ValueError(
            f"environment {name} takes no option {', '.join(unknown)}{nearest(unknown[0], known)}"
        )
    return maker(task, image_size=image_size, quality=quality, **options)
