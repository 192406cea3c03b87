"""Every form in which the official code saves a model, into ours and back, tensor by tensor; by the commands too."""

import json
import pickle
import resource
import signal
from operator import attrgetter
from pathlib import Path

import pytest
import safetensors.torch
import torch
from official_update import find_cases, make_agent
from torch import Tensor

from cwm_hub import cli
from cwm_hub.agents.dreamer import DreamerAgent
from cwm_hub.agents.presets import agent_preset
from cwm_hub.config import override, to_dict
from cwm_hub.hub import export_official, from_pretrained, load_official
from cwm_hub.hub.convert_command import IDLE, not_in_files
from cwm_hub.hub.description import flattened
from cwm_hub.hub.official_names import ConvertError
from cwm_hub.models.registry import create_model
from cwm_hub.models.video_world_model import VideoWorldModel

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"
THREE = ("encoder_variables.pt", "rssm_variables.pt", "decoder_variables.pt")
NORMS = ("_task_behavior.rewnorm.mag", "_expl_behavior.rewnorm.mag")
CASES = {case.name: case for case in find_cases(PARITY / "update")}


def read(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Names, types and bits."""
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype and torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("name", ["contextualized", "plainresnet"])
def test_three_files_come_back_bit_for_bit(name, tmp_path):
    model = load_official(PARITY / name, stoch=3, classes=5)
    export_official(model, tmp_path)
    for file in THREE:
        assert_same(read(PARITY / name / file), read(tmp_path / file))


def test_a_suffix_says_which_of_several(tmp_path):
    model = load_official(PARITY / "plainresnet", stoch=3, classes=5)
    export_official(model, tmp_path, suffix="_s1150001")
    assert_same(load_official(tmp_path, stoch=3, classes=5).state_dict(), model.state_dict())
    torch.nn.init.ones_(model.rssm.img_in.bias)
    export_official(model, tmp_path, suffix="_s50001")
    with pytest.raises(ConvertError, match="models of the suffixes '_s1150001', '_s50001': say which"):
        load_official(tmp_path, stoch=3, classes=5)
    chosen = load_official(tmp_path, stoch=3, classes=5, suffix="_s50001")
    assert chosen.rssm.img_in.bias.eq(1).all()


def whole_agent(case) -> dict[str, Tensor]:
    """A fine-tuned agent's `variables.pt`: the official tensors of one stored update, under the official prefixes."""
    golden = safetensors.torch.load_file(case.data)
    state = {}
    for file, prefix in zip(THREE, ("wm.encoder.", "wm.af_rssm.", "wm.heads.decoder."), strict=True):
        state |= {prefix + key: tensor for key, tensor in read(case.weights / file).items()}
    places = {
        "rssm": "wm.rssm.",
        "reward": "wm.heads.reward.",
        "aux_reward": "wm.heads.aux_reward.",
        "actor": "_task_behavior.actor.",
        "critic": "_task_behavior.critic.",
        "slow_critic": "_task_behavior._target_critic.",
    }
    for module, prefix in places.items():
        start = f"w/{module}/"
        state |= {
            prefix + key.removeprefix(start): tensor.float()
            for key, tensor in golden.items()
            if key.startswith(start)
        }
    state["_task_behavior.rewnorm.mag"] = torch.ones((), dtype=torch.float64)
    state |= {
        name.replace("_task_", "_expl_"): tensor
        for name, tensor in state.items()
        if name.startswith("_task_")
    }
    projection = golden["ib_projection"].float()
    queue = torch.zeros(32, projection.shape[1])
    queue[:8] = 1.0
    return state | {
        "wm.intr_bonus.random_projection_matrix": projection,
        "wm.intr_bonus.queue": queue,
        "wm.intr_bonus.intr_rewnorm.mag": torch.tensor(0.75, dtype=torch.float64),
    }


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_fine_tuned_agent_is_the_one_that_the_update_parity_uses(name, tmp_path):
    """`make_agent` puts the same tensors in their places one by one, and reproduces the official update with them."""
    case = CASES[name]
    state = whole_agent(case)
    torch.save(state, tmp_path / "variables.pt")
    sizes = {"stoch": case.sizes["stoch"], "classes": case.sizes["discrete"]}
    agent = load_official(tmp_path, **sizes)
    assert isinstance(agent, DreamerAgent)
    expected = make_agent(case, safetensors.torch.load_file(case.data)).float()
    assert agent.config.world.concat_embed == expected.config.world.concat_embed
    assert agent.config.world.heads == expected.config.world.heads
    own = {name: tensor for name, tensor in agent.state_dict().items() if not name.startswith("bonus.")}
    for key, tensor in own.items():
        torch.testing.assert_close(tensor, expected.state_dict()[key].to(tensor.dtype), rtol=0, atol=1e-7)
    assert agent.bonus is not None and agent.bonus.filled == 8 and agent.bonus.magnitude == 0.75
    export_official(agent, tmp_path / "back")
    assert_same(state, read(tmp_path / "back" / "variables.pt"))


def test_a_plain_cnn_of_dreamerv2_has_the_official_names_and_comes_back(tmp_path):
    """Names and shapes by hand, for depth 4, S*K = 16, deter 16, an action of 3 numbers and heads of one layer of 8."""
    config = override(
        agent_preset("dreamerv2-cnn-tiny", action_size=3),
        {
            "world.frame.image_size": 64,
            "world.frame.depth": 4,
            "world.rssm": {"stoch": 4, "classes": 4, "deter": 16, "hidden": 16, "action_size": 3},
            "world.heads": {"layers": 1, "units": 8},
            "behaviour.heads": {"layers": 1, "units": 8},
        },
    )
    torch.manual_seed(0)
    agent = DreamerAgent(config)
    export_official(agent, tmp_path)
    state = read(tmp_path / "variables.pt")
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    assert shapes["wm.encoder.conv0.weight"] == [4, 3, 4, 4] and shapes["wm.encoder.conv3.bias"] == [32]
    assert shapes["wm.heads.decoder.convin.weight"] == [128, 32]
    assert shapes["wm.heads.decoder.conv0.weight"] == [128, 16, 5, 5]
    assert shapes["wm.heads.decoder.conv3.weight"] == [4, 3, 6, 6]
    assert shapes["wm.rssm.img_in.weight"] == [16, 19] and shapes["wm.rssm.obs_out.weight"] == [16, 16 + 128]
    assert shapes["wm.heads.reward.out.out.weight"] == [1, 8]
    assert shapes["_task_behavior.actor.out.std.bias"] == [3]
    assert shapes["_expl_behavior._target_critic.dense0.weight"] == [8, 32]
    assert not any(name.startswith(("wm.af_rssm", "wm.intr_bonus", "wm.heads.aux")) for name in state)
    back = load_official(tmp_path, stoch=4, classes=4)
    assert back.config.world == config.world and back.config.intrinsic is None
    assert_same(back.state_dict(), agent.state_dict())


def test_a_pre_training_runs_whole_state_is_its_three_files(tmp_path):
    prefixes = ("wm.encoder.", "wm.rssm.", "wm.heads.decoder.")
    whole = {
        prefix + key: tensor
        for file, prefix in zip(THREE, prefixes, strict=True)
        for key, tensor in read(PARITY / "contextualized" / file).items()
    }
    torch.save(whole, tmp_path / "variables_s1000.pt")
    model = load_official(tmp_path, stoch=3, classes=5)
    assert isinstance(model, VideoWorldModel)
    assert_same(model.state_dict(), load_official(PARITY / "contextualized", stoch=3, classes=5).state_dict())


def test_a_plain_cnn_of_pre_training_comes_back(tmp_path):
    overrides = {"frame.backbone": "cnn", "frame.image_size": 64, "frame.depth": 2, "frame.layers": 2}
    model = create_model("plainwm-debug", overrides=overrides)
    assert "conv0.weight" in read(export_official(model, tmp_path)[0])
    back = load_official(tmp_path, stoch=4, classes=4)
    assert back.config == model.config
    assert_same(back.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_expl_behavior.actor.out.out.bias": torch.ones(4)}, "explores by an actor of its own"),
        (dict.fromkeys(NORMS, torch.tensor(2.0)), "imagined rewards are divided by 2.0"),
        (
            {"wm.heads.discount.out.out.bias": torch.ones(1)},
            "no place for the official tensor 'wm.heads.discount.out.out.bias'",
        ),
        ({"wm.rssm.img_in.bias": torch.ones(7)}, "the official weights do not fit: .* size mismatch"),
    ],
)
def test_an_agent_that_ours_is_not_is_refused(change, sentence, tmp_path):
    torch.save(whole_agent(CASES["contextualized"]) | change, tmp_path / "variables.pt")
    with pytest.raises(ConvertError, match=sentence):
        load_official(tmp_path, stoch=3, classes=5)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Wicked:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    (tmp_path / "variables.pt").write_bytes(pickle.dumps(Wicked()))
    with pytest.raises(ConvertError, match="not a PyTorch state dict"):
        load_official(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda name, tensor: (3, tensor), "not a state dict of tensors"),
        (lambda name, tensor: (name, tensor.to_sparse()), "not a state dict of tensors"),
        (lambda name, tensor: (name, torch.tensor(1.0)), "its tensors have other shapes"),
        (lambda name, tensor: (name, tensor.to(torch.int8)), "holds torch.int8, expected torch.float32"),
        (
            lambda name, tensor: (name, tensor.to(torch.complex64)),
            "holds torch.complex64, expected torch.float32",
        ),
        (lambda name, tensor: (name, tensor * torch.nan), "holds numbers that are not finite"),
    ],
)
def test_tensors_that_are_none_of_a_model_are_one_sentence(change, sentence, tmp_path):
    for file in THREE:
        state = read(PARITY / "plainresnet" / file)
        if file == "rssm_variables.pt":
            state = dict(change(name, tensor) for name, tensor in state.items())
        torch.save(state, tmp_path / file)
    with pytest.raises(ConvertError, match=sentence):
        load_official(tmp_path, stoch=3, classes=5)


def test_an_export_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    model = load_official(PARITY / "plainresnet", stoch=3, classes=5)
    with pytest.raises(ConvertError, match="a suffix is a part of a file's name"):
        export_official(model, tmp_path / "out", suffix="/../x")
    assert not (tmp_path / "out").exists()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a disk that takes no more
    try:
        with pytest.raises(ConvertError, match=r"cannot write .*encoder_variables\.pt"):
            export_official(model, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"frame.norm": "group"}, "have no norm 'group'"),
        ({"frame.context.heads": 2}, "have no other than 4 attention heads"),
        ({"objective.kind": "contrastive"}, "no objective 'contrastive'"),
        ({"frame.backbone": "cnn", "frame.context": None}, "no plain convolutions at other than 64 pixels"),
    ],
)
def test_what_the_official_code_cannot_hold_is_not_exported(overrides, sentence, tmp_path):
    model = create_model("contextwm-debug", overrides={"frame.context.heads": 4} | overrides)
    with pytest.raises(ConvertError, match=sentence):
        export_official(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


OTHER = {
    "frame": "first",
    "augmentation": "flip",
    "norm": "group",
    "backbone": "cnn",
    "mixing": "concat",
    "kind": "contrastive",
    "precision": "bf16",
    "context": None,
    "image_size": 80,
    "heads": 2,
    "stoch": 5,
    "classes": 3,
}
"""Another value of a setting by its last name, where that is neither the other flag nor half or twice the number."""


def fits(model: torch.nn.Module, changes: dict[str, object]) -> bool:
    """Whether a model of the changed configuration takes the same tensors."""
    try:
        with torch.device("meta"):
            changed = type(model)(override(model.config, changes)).state_dict()
    except ValueError:  # there is no such model
        return False
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return {name: tensor.shape for name, tensor in changed.items()} == shapes


@pytest.mark.parametrize("form", ["three files", "agent"])
def test_the_settings_said_not_to_be_in_the_files_are_those_that_could_be_otherwise(form, tmp_path):
    """All of them changed, the weights fit no less; any other one changed, there are tensors without a place."""
    if form == "agent":
        torch.save(whole_agent(CASES["contextualized"]), tmp_path / "variables.pt")
    model = load_official(tmp_path if form == "agent" else PARITY / "contextualized", stoch=3, classes=5)
    changes: dict[str, object] = {}
    for name in flattened(to_dict(model.config)):
        was, last = attrgetter(name)(model.config), name.rpartition(".")[2]
        number = (was / 2 if isinstance(was, float) else 2 * was) or 1
        changes[name] = OTHER[last] if last in OTHER else not was if isinstance(was, bool) else number
    said = not_in_files(model.config)
    assert fits(model, {name: changes[name] for name in said})
    for name in changes.keys() - said.keys():
        last = name.rpartition(".")[2]
        again = name.startswith(("world.frame.", "world.video_rssm."))  # as of three files
        if last not in (*IDLE, "encoder") and not again:  # timm's encoder takes seconds to import
            assert not fits(model, {name: changes[name]}), name


def test_the_commands_there_and_back_with_a_card_that_names_the_authors(tmp_path, capsys):
    official, place, back = PARITY / "contextualized", tmp_path / "ours", tmp_path / "back"
    sizes = ["--stoch", "3", "--classes", "5"]
    assert cli.main(["convert", str(official), "--to", str(place), *sizes, "--source", "a <b>link</b>"]) == 0
    assert "a VideoWorldModel of the official code" in capsys.readouterr().out
    card = (place / "README.md").read_text()
    assert "license: other" in card and "Jialong Wu" in card and "a &lt;b&gt;link&lt;/b&gt;" in card
    converted = json.loads((place / "train.json").read_text())["converted_from"]
    assert converted["files"].keys() == set(THREE) and converted["code"] == "thuml/ContextWM"
    assert (
        "`frame.context.token_dropout` 0.75" in card
        and "`rssm.classes` 5" in card
        and "`rssm.deter`" not in card
    )
    assert_same(from_pretrained(place).state_dict(), load_official(official, stoch=3, classes=5).state_dict())
    assert cli.main(["export", str(place), "--to", str(back)]) == 0
    for file in THREE:
        assert_same(read(official / file), read(back / file))
    capsys.readouterr()
    assert cli.main(["convert", str(official), "--to", str(tmp_path / "x")]) == 1
    assert "15 latent units, not 32 x 32" in capsys.readouterr().err
    assert cli.main(["convert", str(official), "--to", "hf://someone/wm", *sizes, "--dry-run"]) == 0
    assert "would go to hf://someone/wm" in capsys.readouterr().out
