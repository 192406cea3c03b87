"""Environments in processes of their own, which simulate and draw while others do.

    parent   begin_step(a), of every environment   ----action--->   env.step(a)
             step(a): waits                        <---frame-----

gymnasium's AsyncVectorEnv is not used: its processes import the page that was launched, torch included, reset an episode that
ended although the others go on, and end with the signal by which a run is asked to save.
"""

import contextlib
import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8

THREADS = ("OMP_NUM_THREADS", "LP_NUM_THREADS")
"""Of which a process has one unless the machine says otherwise: the processes share the cores."""
TOLD = ("success", "visual_seed")
"""What of the info comes back."""


def make_process_envs(count: int, **settings: Any) -> "list[ProcessEnv]":
    """So many environments alike, made at the same time.

    Raises:
        ValueError: as `make_env`.
    """
    envs = [ProcessEnv(**settings) for _ in range(count)]
    try:
        for env in envs:
            env.wait_until_made()
    except BaseException:
        for env in envs:
            env.close()
        raise
    return envs


class ProcessEnv(gymnasium.Env[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "A"]]):
    """`make_env(**settings)` in another process: its frames, rewards and ends are those that it has in this one.

    Suites of `register_env` are not known there; `module:factory` is. Every method raises ValueError where the process has ended
    by itself; what it died of is on its stderr, which is this one's.
    """

    render_mode = "rgb_array"

    def __init__(self, **settings: Any):
        self._name = settings.get("name")
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cwm_hub.envs.processes", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=dict.fromkeys(THREADS, "1") | os.environ,
        )
        theirs.close()
        self._asked = False
        self._ask("make", sys.path, settings)

    def wait_until_made(self) -> None:
        """To be called before anything else; raises what `make_env` raised."""
        self.observation_space, self.action_space, self.metadata = self._answer()

    def begin_reset(self, seed: int) -> None:
        """Ask for a reset, whose answer `reset` waits for."""
        self._ask("reset", seed)

    def begin_step(self, action: Float[np.ndarray, "A"]) -> None:
        """Ask for a step, whose answer `step` waits for."""
        self._ask("step", action)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W 3"], dict[str, Any]]:
        """The answer to the reset that was begun, or else to one with this seed."""
        if not self._asked:
            self._ask("reset", seed)
        return self._answer()

    def step(
        self, action: Float[np.ndarray, "A"]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], float, bool, bool, dict[str, Any]]:
        """The answer to the step that was begun, or else to one with this action; of the info, `TOLD` alone."""
        if not self._asked:
            self._ask("step", action)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()  # at which it closes the environment and ends
        self._process.wait()

    def _ask(self, *words: Any) -> None:
        assert not self._asked
        self._asked = True
        with contextlib.suppress(OSError):  # the answer will be missing
            self._connection.send(words)

    def _answer(self) -> Any:
        try:
            error, answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise ValueError(f"the process of {self._name} ended by itself, with exit code {code}") from None
        self._asked = False
        if error is not None:
            raise error
        return answer


def serve(connection: Connection) -> None:
    """Do what is asked until nobody asks any more.

    A signal to all processes of a run, as Ctrl-C is, must not end this one: the run's own saves and closes the connection.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        _, path, settings = connection.recv()
        sys.path[:] = path
        from cwm_hub.envs.table import make_env

        try:
            env = make_env(**settings)
        except (ValueError, ImportError, OSError) as error:
            connection.send((error, None))
            return
        connection.send((None, (env.observation_space, env.action_space, env.metadata)))
        with contextlib.closing(env):
            while True:
                word, argument = connection.recv()
                answer: Any = env.reset(seed=argument) if word == "reset" else env.step(argument)
                *rest, info = answer
                connection.send((None, (*rest, {name: info[name] for name in TOLD if name in info})))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
