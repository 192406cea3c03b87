"""Saved agents and the tasks they learned: from a run folder, finished or running, a folder with an agent, or the Hub."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cwm_hub.agents.agent import Agent, device_named
from cwm_hub.config import ConfigError, from_dict, override
from cwm_hub.envs.table import EnvConfig, evaluation_env, names_code
from cwm_hub.hub.checkpoint import CONFIG, TRAIN, Checkpoint, CheckpointError
from cwm_hub.hub.files import local_path
from cwm_hub.hub.names import find_checkpoint


@dataclass(frozen=True)
class SavedAgent:
    """An agent that was found but not yet loaded, and what is recorded of how it learned."""

    checkpoint: Checkpoint
    settings: Mapping[str, Any]
    """Of the run that made it, as recipes/finetune.py writes them; empty where nothing is recorded."""
    agent_steps: int | None
    """Steps that it learned from, None where nothing is recorded."""
    run: Path | None = None
    """The run folder, None where only the agent was found."""

    @property
    def trained_on(self) -> EnvConfig | None:
        """The task of its training as the evaluations had it, None where nothing is recorded.

        Raises:
            ConfigError: the record names something that `EnvConfig` does not have.
        """
        return recorded_env(self.settings, where=f"{self.checkpoint}'s environment")

    def environment(
        self, task: str | None = None, *, image_size: int, changes: Mapping[str, Any] | None = None
    ) -> EnvConfig:
        """The environment of its training, but for what is asked for; options belong to their suite.

        Args:
            task: `suite:task`, where it is to be another.
            image_size: that the agent sees, for where nothing is recorded.
            changes: other fields of `EnvConfig`, by name.

        Raises:
            ValueError: fields that `EnvConfig` does not have, no record of a task and none given, or one that would run
                code which an agent from elsewhere names: only a run folder's own record is believed so far.
        """
        trained = self.trained_on
        if trained is None:
            if task is None:
                raise CheckpointError(
                    f"{self.checkpoint} does not say what it was trained on: give --task suite:task"
                )
            trained = EnvConfig(task, image_size)
        named = task or (changes or {}).get("name")
        if named is None and self.run is None and names_code(trained.name):
            raise CheckpointError(
                f"{self.checkpoint} was trained on {trained.name}, which is code of its own: --task {trained.name} says to run it"
            )
        task = task or trained.name
        if task.partition(":")[0] != trained.name.partition(":")[0]:
            trained = replace(trained, options={})
        return override(replace(trained, name=task), changes or {}, where="env")

    def load(self, *, device: str = "auto") -> Agent:
        """The agent, ready to act.

        Args:
            device: where its weights are put: `auto`, `cpu` or `cuda`.

        Raises:
            CheckpointError: incomplete or damaged.
            ValueError: no such device here.
        """
        agent = self.checkpoint.load(device=device_named(device))
        assert isinstance(agent, Agent)
        return agent


def recorded_env(settings: Mapping[str, Any], *, where: str) -> EnvConfig | None:
    """The task of a run's evaluations by its settings, None where they have none.

    Raises:
        ConfigError: they name something that `EnvConfig` does not have.
    """
    if settings.get("env") is None:
        return None
    options = settings.get("evaluation_options") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}: evaluation_options expects a mapping, got {options!r}")
    return evaluation_env(from_dict(EnvConfig, settings["env"], where=where), options)


def find_agent(name_or_path: str | os.PathLike[str]) -> SavedAgent:
    """Finds an agent: of a run folder the one that learned longest, or whatever `find_checkpoint` finds by that name.

    Raises:
        CheckpointError: nothing by that name, a run that has not saved an agent yet, or a model that does not act.
    """
    run = local_path(name_or_path)
    if run.is_dir() and not (run / CONFIG).is_file():
        saved = _of_run(run)
    else:
        checkpoint = find_checkpoint(name_or_path)
        train = checkpoint.read(TRAIN) or {}
        settings = train.get("config") or {}
        if not isinstance(settings, Mapping):
            raise CheckpointError(f"{checkpoint}/{TRAIN}: config expects a mapping, got {settings!r}")
        saved = SavedAgent(checkpoint, settings, train.get("agent_steps"))
    model_class = saved.checkpoint.model_class
    if not hasattr(model_class, "act"):
        raise CheckpointError(f"{saved.checkpoint} holds a {model_class.__name__}, which is no agent")
    return saved


def _of_run(run: Path) -> SavedAgent:
    """The newest agent of a run: its result, or that of a checkpoint where the run goes on."""
    steps = {
        int(place.parent.name.removeprefix("step-")): place
        for place in run.glob("checkpoints/step-*/agent")
        if place.parent.name.removeprefix("step-").isdigit()
    }
    result = run / "agent"
    if (result / TRAIN).is_file():
        try:
            steps[int(json.loads((result / TRAIN).read_text())["agent_steps"])] = result
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{result / TRAIN} cannot be read ({error})") from error
    if not steps:
        raise CheckpointError(
            f"{run} is no checkpoint and no run with an agent: fine-tuning saves one at its first checkpoint"
        )
    newest = max(steps)
    path = run / "config.yaml"
    try:
        settings = dict(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    return SavedAgent(find_checkpoint(steps[newest]), settings, newest, run)
