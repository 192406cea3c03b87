"""Recipes read YAML and overrides into their dataclass, and a mistake is one line that helps."""

import itertools
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from cwm_hub.models.registry import model_config
from recipes.run.agent_setup import new_settings
from recipes.run.command_line import parse_config
from recipes.run.finetune_settings import FinetuneConfig
from recipes.run.pretrain_settings import PretrainConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Part:
    """A nested part."""

    width: int = 3
    """Of it."""


@dataclass(frozen=True)
class Settings:
    """Settings of a recipe."""

    run: str
    """Run folder."""
    learning_rate: float = 0.1
    """Of Adam."""
    parts: list[Part] = field(default_factory=list)
    """Several."""
    part: Part = field(default_factory=Part)
    """One."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Free."""
    runs: dict[str, list[str]] = field(default_factory=dict)
    """By names that the user chose."""
    words: list[str] = field(default_factory=list)
    """Several."""
    word: Literal["no", "yes"] | None = None
    """One of two."""
    flag: bool = False
    """On or off."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("run: somewhere\nlearning_rate: 3e-4\nparts: [{width: 7}]\noverrides: {a.b: 2}\n")
    return path


def test_a_file_and_overrides_on_top(file):
    settings = parse_config(Settings, ["--config", str(file), "--learning_rate", "1", "--part.width", "5"])
    assert settings == Settings("somewhere", 1.0, [Part(7)], Part(5), {"a": {"b": 2}})


def test_words_are_read_as_their_setting_says():
    words = ["--run", "1e3", "--learning-rate", "inf", "--words", "a", "null", "--word", "no", "--flag"]
    words += ["--runs.my-run.v0", "b", "c", "--overrides.a-b.c-d", "1e-3", "--overrides.name", "no"]
    settings = parse_config(Settings, words)
    assert (settings.run, settings.learning_rate, settings.words) == ("1e3", float("inf"), ["a", "null"])
    assert (settings.word, settings.flag) == ("no", True)
    assert settings.runs == {"my-run.v0": ["b", "c"]}
    assert settings.overrides == {"a_b": {"c_d": 1e-3}, "name": "no"}
    settings = parse_config(Settings, ["--run", "x", "--words", "[a, b]", "--word=null", "--flag", "false"])
    assert (settings.words, settings.word, settings.flag) == (["a", "b"], None, False)


def test_a_dash_is_an_underscore_in_the_file_too(file):
    file.write_text("run: x\nlearning-rate: 2\nruns: {my-run: [a]}\noverrides: {a-b: {c-d: 1}}\nword: no\n")
    settings = parse_config(Settings, ["--config", str(file)])
    assert settings.learning_rate == 2.0 and settings.runs == {"my-run": ["a"]} and settings.word == "no"
    assert settings.overrides == {"a_b": {"c_d": 1}}


def test_what_is_printed_is_read_again(file, capsys):
    words = ["--config", str(file), "--overrides.x.y", "3", "--runs.my-run", "a", "--part.width", "9"]
    words += ["--overrides.p.q.r=1", "--overrides.p.q=null", "--overrides.p.q.s=2"]
    with pytest.raises(SystemExit) as exit_:
        parse_config(Settings, [*words, "--print_config"])
    assert not exit_.value.code
    file.write_text(capsys.readouterr().out)
    settings = parse_config(Settings, ["--config", str(file)])
    assert settings == parse_config(Settings, words)
    assert list(settings.overrides["p"].items()) == [("q", None), ("q.s", 2)]


def in_every_form(head, leaves, file):
    """Command lines that give the leaves, by dotted name below the head, in all ways that there are."""
    options = [[f"--{head}.{name}", str(value)] for name, value in leaves.items()]
    for order in itertools.permutations(options):
        yield list(itertools.chain(*order))
    yield [f"--{head}.{name}={value}" for name, value in leaves.items()]
    yield [f"--{head}.{name.replace('_', '-')}={value}" for name, value in leaves.items()]
    nested = {}
    for name, value in leaves.items():
        *parts, last = name.split(".")
        place = nested
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    for block in (nested, dict(leaves)):
        yield [f"--{head}", yaml.safe_dump(block, default_flow_style=True)]
        file.write_text(yaml.safe_dump({head: block}))
        yield ["--config", str(file)]
    (first, one), *others = leaves.items()
    rest = [word for name, value in others for word in (f"--{head}.{name}", str(value))]
    file.write_text(yaml.safe_dump({head: {first: one}}))
    yield ["--config", str(file), *rest]
    yield [*rest, "--config", str(file)]
    yield [f"--{head}", f"{{{first}: {one}}}", *rest]
    yield [*rest, f"--{head}", f"{{{first}: {one}}}"]
    file.write_text(yaml.safe_dump({f"{head}.{first}": one}))
    yield ["--config", str(file), *rest]


def pretrained(words):
    config = parse_config(PretrainConfig, ["--data", "[{root: x}]", "--model", "contextwm-debug", *words])
    return model_config(config.model, overrides=config.overrides)


def finetuned(words):
    config = parse_config(FinetuneConfig, ["--model", "contextwm-debug", "--env.image_size", "32", *words])
    return new_settings(config, 1)


def test_three_keys_at_three_depths_of_pretrain(tmp_path):
    leaves = {"kl_scale": 0.5, "rssm.hidden": 24, "frame.context.heads": 2}
    for words in in_every_form("overrides", leaves, tmp_path / "c.yaml"):
        model = pretrained(words)
        assert (model.kl_scale, model.rssm.hidden, model.frame.context.heads) == (0.5, 24, 2), words
        assert model.frame.context.dropout == model_config("contextwm-debug").frame.context.dropout
    wanted = replace(model_config("contextwm-debug").rssm, deter=16, hidden=24, stoch=5)
    for words in in_every_form(
        "overrides.rssm", {"deter": 16, "hidden": 24, "stoch": 5}, tmp_path / "c.yaml"
    ):
        assert pretrained(words).rssm == wanted, words


def test_three_keys_at_three_depths_of_finetune(tmp_path):
    leaves = {"batch_sequences": 3, "world.free_nats": 1.5, "world.frame.context.heads": 2}
    for words in in_every_form("agent", leaves, tmp_path / "c.yaml"):
        agent = finetuned(words)
        found = (agent.batch_sequences, agent.world.free_nats, agent.world.frame.context.heads)
        assert found == (3, 1.5, 2), words
    leaves = {"world.free_nats": 1, "world.concat_embed": "true", "world.heads.units": 16}
    words = [f"--agent.{name}={value}" for name, value in leaves.items()]
    world = finetuned(words).world
    assert (world.free_nats, world.concat_embed, world.heads.units) == (1.0, True, 16)


@pytest.mark.parametrize("name", ["fetch", "evaluation"])
def test_parts_with_types_of_their_own_merge_too(name, tmp_path):
    leaves = {
        "fetch": {"retries": 2, "timeout_seconds": 9.5, "cache_bytes": 7},
        "evaluation": {"windows": 3, "horizon": 4, "seed": 5},
    }[name]
    for words in in_every_form(name, leaves, tmp_path / "c.yaml"):
        part = vars(getattr(parse_config(PretrainConfig, ["--data", "[{root: x}]", *words]), name))
        assert {key: part[key] for key in leaves} == leaves, words


def test_a_free_mapping_inside_a_part_merges_and_stays_nested(tmp_path):
    leaves = {"camera": "side", "light.angle": 3, "light.colour.red": 0.5}
    for words in in_every_form("env.options", leaves, tmp_path / "c.yaml"):
        options = parse_config(FinetuneConfig, words).env.options
        assert options == {"camera": "side", "light": {"angle": 3, "colour": {"red": 0.5}}}, words


def test_the_later_wins_leaf_by_leaf(tmp_path):
    (tmp_path / "a.yaml").write_text("overrides: {rssm: {deter: 1, hidden: 2, stoch: 3}}")
    (tmp_path / "b.yaml").write_text("overrides: {rssm.hidden: 20}")
    words = ["--config", str(tmp_path / "a.yaml"), "--overrides.rssm.stoch", "30", "--config"]
    rssm = pretrained([*words, str(tmp_path / "b.yaml"), "--overrides", "{rssm: {classes: 7}}"]).rssm
    assert (rssm.deter, rssm.hidden, rssm.stoch, rssm.classes) == (1, 20, 30, 7)


def test_null_takes_a_part_out_and_parts_after_it_begin_anew():
    assert pretrained(["--overrides.frame.context", "null"]).frame.context is None
    assert pretrained(["--overrides", "{frame: {context: null}}"]).frame.context is None
    assert (
        pretrained(["--overrides.frame.context.heads=2", "--overrides.frame.context=null"]).frame.context
        is None
    )
    assert finetuned(["--agent.intrinsic.beta=2", "--agent.intrinsic", "null"]).intrinsic is None
    agent = finetuned(
        ["--agent.intrinsic", "null", "--agent.intrinsic.beta", "0.5", "--agent.batch_sequences=3"]
    )
    assert agent.intrinsic == type(agent.intrinsic)(beta=0.5) and agent.batch_sequences == 3
    fresh = pretrained(
        ["--overrides.frame.context=null", "--overrides.frame.context.dropout=0.25"]
    ).frame.context
    assert fresh == type(fresh)(dropout=0.25)


@pytest.mark.parametrize(
    ("build", "words", "sentence"),
    [
        (pretrained, ["--overrides.rssm.deter=16", "--overrides.rssm.hiden=16"], "did you mean 'hidden'"),
        (pretrained, ["--overrides", "{rssm: {deter: 16, hiden: 16}}"], "did you mean 'hidden'"),
        (finetuned, ["--agent.world.fre_nats=1", "--agent.batch_sequences=1"], "did you mean 'free_nats'"),
        (
            pretrained,
            ["--overrides.kl_scale=1", "--overrides.kl_scale.x=1"],
            "both a value and values of its parts",
        ),
    ],
)
def test_an_unknown_leaf_is_refused(build, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(words)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run", "x", "--learning-rat", "1"], "did you mean 'learning_rate'?"),
        (["--run", "x", "--flag", "perhaps"], "flag expects bool, got 'perhaps'"),
        (["--run", "x", "--overrides", "{a"], "--overrides {a"),
        (["--run", "x", "--runs.a"], "--runs.a"),
        (["--run", "x", "stray"], "stray"),
        (["--run", "x", "--part", "null"], "part expects a mapping"),
        (["--run", "x", "--learning_rat", "1"], "did you mean 'learning_rate'?"),
        (["--run", "x", "--part.widht", "1"], "did you mean 'part.width'?"),
        (["--run", "x", "--learning_rate", "fast"], "learning_rate"),
        ([], "--run is needed"),
        (["--config", "absent.yaml"], "cannot read --config absent.yaml"),
        (["--run", ""], "one of the arguments is empty: is a variable of the shell not set?"),
        (["--run="], "one of the arguments is empty"),
    ],
)
def test_a_mistake_is_one_line(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_config(Settings, arguments)
    printed = capsys.readouterr()
    assert exit_.value.code == 1 and not printed.out
    assert printed.err.startswith("error: ") and sentence in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("env_frames", "env.episode_frames"),  # and not env.name
        ("steps", "agent_steps"),
        ("image-size", "env.image_size"),
        ("seeds", "seed"),
        ("agnet_steps", "agent_steps"),
        ("eval_every", "evaluate_every_steps"),
        ("lr", "agent.world_lr"),
        ("num_envs", "collect_envs"),
        ("batch-size", "agent.batch_sequences"),
        ("checkpoint", "init"),  # and not checkpoint_every_steps
        ("out", "run"),
        ("task", "env.name"),
    ],
)
def test_the_name_that_was_meant_is_suggested(word, meant, capsys):
    with pytest.raises(SystemExit):
        parse_config(FinetuneConfig, [f"--{word}", "3"])
    assert f"did you mean {meant!r}?" in capsys.readouterr().err


def test_a_misspelt_key_in_the_file_suggests_the_right_one(file, capsys):
    file.write_text("run: x\nlerning_rate: 1\n")
    with pytest.raises(SystemExit):
        parse_config(Settings, ["--config", str(file)])
    assert "did you mean 'learning_rate'?" in capsys.readouterr().err


def test_help_says_what_every_field_is(capsys):
    with pytest.raises(SystemExit):
        parse_config(Settings, ["--help"])
    assert "Of Adam." in capsys.readouterr().out


TYPOS = {
    "compare": ("desings.a", "designs"),
    "demo": ("scrach", "scratch"),
    "evaluate": ("figure-window", "figure_windows"),
    "evaluate_agent": ("episdes", "episodes"),
    "finetune": ("agent-step", "agent_steps"),
    "pretrain": ("evaluate-evry", "evaluate_every"),
    "publish": ("pictrues", "pictures"),
    "render_clips": ("image-sise", "image_size"),
    "report": ("tilte", "title"),
    "sweep": ("sedes", "seeds"),
}
"""Page to a mistyped option and the right one."""


def test_every_page_has_its_typo():
    launched = {path.stem for path in (ROOT / "recipes").glob("*.py")} - {"__init__"}
    assert launched == TYPOS.keys()


@pytest.mark.parametrize("page", TYPOS)
def test_every_page_answers_help_and_typos_without_torch(page):
    wrong, right = TYPOS[page]
    report = (
        "import atexit, runpy, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))"
    )
    for words, code, said in (
        (["--help"], 0, f"--{right}"),
        ([f"--{wrong}", "3"], 1, f"did you mean {right!r}?"),
    ):
        run = f"{report}; sys.argv[1:] = {words}; runpy.run_path('recipes/{page}.py', run_name='__main__')"
        result = subprocess.run(
            [sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == code and said in result.stdout + result.stderr, result.stderr
        assert result.stderr.endswith("False\n") and result.stderr.count("\n") == 1 + code


@pytest.mark.parametrize(
    ("page", "words", "said"),
    [
        ("evaluate", "--checkpoint a --data b c --out d", "loading a, and held-out windows of b, c"),
        ("evaluate_agent", "--agent a --out b", "loading a"),
        ("finetune", "--model a --env.name b:c", "loading a on b:c"),
        ("pretrain", "--data '[{root: a}]'", "loading a"),
    ],
)
def test_what_is_loaded_is_said_before_torch_is(page, words, said):
    run = f"import runpy, sys; sys.modules['torch'] = None; sys.argv[1:] = {shlex.split(words)}"
    run += f"; runpy.run_path('recipes/{page}.py', run_name='__main__')"
    result = subprocess.run(
        [sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout == f"{said}\n" and "torch" in result.stderr


@pytest.mark.parametrize(
    "text", ["overrides: {a: {b: 2}}\noverrides: {a: {c: 3}}\n", "overrides: {a: {b: 2, b: 3}}\n"]
)
def test_a_name_that_stands_twice_in_one_mapping_is_refused(text, tmp_path, capsys):
    (tmp_path / "twice.yaml").write_text("run: somewhere\n" + text)
    for words in (["--config", str(tmp_path / "twice.yaml")], ["--run", "x", "--overrides", "{a: 1, a: 2}"]):
        with pytest.raises(SystemExit) as stopped:
            parse_config(Settings, words)
        assert stopped.value.code == 1
        assert "twice" in capsys.readouterr().err.replace("twice.yaml", "")


def test_a_mapping_may_be_merged_into_another(tmp_path):
    (tmp_path / "merge.yaml").write_text("run: x\noverrides: {a: &a {b: 1, c: 1}, d: {<<: *a, c: 2}}\n")
    settings = parse_config(Settings, ["--config", str(tmp_path / "merge.yaml")])
    assert settings.overrides == {"a": {"b": 1, "c": 1}, "d": {"b": 1, "c": 2}}


def test_ctrl_c_while_a_recipe_imports_is_a_line() -> None:
    program = (
        "from recipes.run.command_line import parse_config\n"
        "from recipes.run.finetune_settings import FinetuneConfig\n"
        "parse_config(FinetuneConfig)\n"
        "raise KeyboardInterrupt\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stderr == "\ninterrupted\n" and ended.returncode == -signal.SIGINT
