"""Checkpoints come back as they were, in one line, and every way in which they can be wrong is one sentence."""

import dataclasses
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from checkpoint_facts import SCORECARD, TRAIN
from torch import nn

from cwm_hub.hub import catalogue, checkpoint, embedded_names
from cwm_hub.hub.checkpoint import CheckpointError
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.pretrained import from_pretrained, push_to_hub
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel
from cwm_hub.models.registry import create_model
from cwm_hub.models.video_world_model import VideoWorldModel


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(directory: Path, change) -> None:
    path = directory / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


@pytest.mark.parametrize("preset", ["contextwm-debug", "plainwm-debug"])
def test_a_model_comes_back_equal_and_in_eval_mode(preset, tmp_path):
    model = create_model(preset)
    loaded = from_pretrained(save_pretrained(model, tmp_path / "model"))
    assert type(loaded) is VideoWorldModel and not loaded.training
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_a_loaded_model_predicts_the_same(model, saved):
    video = torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8)
    predictions = []
    for one in (model.eval(), from_pretrained(saved)):
        torch.manual_seed(7)
        predictions.append(one.predict(video, observed_frames=5))
    assert torch.equal(*predictions)


def test_loading_leaves_the_random_state_alone(saved):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    from_pretrained(saved)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.slow
def test_a_compiled_model_is_saved_under_its_plain_names(model, saved, tmp_path):
    again = save_pretrained(torch.compile(model), tmp_path / "compiled")
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_the_directory_holds_the_documented_files(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "scorecard.json",
        "train.json",
    ]
    header = json.loads((saved / "config.json").read_text())
    assert {key: header[key] for key in ("model_type", "format_version")} == {
        "model_type": "video_world_model",
        "format_version": 1,
    }
    found = find_checkpoint(saved)
    assert found.read("train.json") == TRAIN and found.read("scorecard.json") == SCORECARD
    assert found.read("nothing.json") is None


def test_a_checkpoint_is_as_readable_as_its_neighbours(saved):
    folder, file = saved.parent / "folder", saved.parent / "file"
    folder.mkdir()
    file.touch()
    assert saved.stat().st_mode == folder.stat().st_mode
    assert {path.stat().st_mode for path in saved.iterdir()} == {file.stat().st_mode}


def test_identity_changes_with_the_weights_only(model, saved, tmp_path):
    same = save_pretrained(model, tmp_path / "same", card=False)
    next(model.parameters()).data += 1
    other = save_pretrained(model, tmp_path / "other", card=False)
    hashes = [find_checkpoint(place).identity()["weights_sha256"] for place in (saved, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_library_prints_nothing(model, tmp_path, capfd):
    from_pretrained(save_pretrained(model, tmp_path / "quiet", train=TRAIN))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_initial_weights_of_a_timm_encoder_are_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    overrides = {"frame.context.encoder": "timm:test_resnet", "frame.context.pretrained": False}
    saved = save_pretrained(create_model("contextwm-debug", overrides=overrides), tmp_path / "model")
    header = json.loads((saved / "config.json").read_text())
    header["config"]["frame"]["context"]["pretrained"] = True
    edit_config(saved, config=header["config"])
    assert from_pretrained(saved).config.frame.context.pretrained


def corrupt_header(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\xff" * 100)


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def drop_a_tensor(directory: Path) -> None:
    edit_weights(directory, lambda tensors: tensors.popitem())


def reshape_a_tensor(directory: Path) -> None:
    def change(tensors: dict) -> None:
        name = sorted(tensors)[0]
        tensors[name] = torch.zeros(1, 2, 3)

    edit_weights(directory, change)


def change_a_tensor(directory: Path, change) -> None:
    def replace(tensors: dict) -> None:
        name = next(name for name, tensor in sorted(tensors.items()) if tensor.is_floating_point())
        tensors[name] = change(tensors[name])

    edit_weights(directory, replace)


BROKEN = {
    "no config": (
        lambda d: (d / "config.json").unlink(),
        "has no config.json: it is not a cwm_hub checkpoint",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "has no model.safetensors"),
    "config not json": (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
    "config a list": (lambda d: (d / "config.json").write_text("[]"), "expects a mapping, got a list"),
    "config not text": (lambda d: (d / "config.json").write_bytes(b"\xff\xfe{"), "config.json is not JSON"),
    "no version": (lambda d: edit_config(d, format_version=None), "expected a format_version from 1"),
    "newer format": (lambda d: edit_config(d, format_version=9), "is newer than 1.*upgrade"),
    "unknown type": (
        lambda d: edit_config(d, model_type="video_wrld_model"),
        "did you mean 'video_world_model'",
    ),
    "type a list": (lambda d: edit_config(d, model_type=[]), "knows no model_type"),
    "no model config": (lambda d: edit_config(d, config=None), "expects a mapping"),
    "unknown key": (
        lambda d: edit_config(d, config={"kl_scal": 1.0}),
        "unknown key 'kl_scal'.*did you mean 'kl_scale'",
    ),
    "later writer": (
        lambda d: edit_config(d, config={"kl_new": 1.0}, cwm_hub_version="0.9.0"),
        r"written by cwm_hub 0\.9\.0, read by",
    ),
    "impossible value": (lambda d: edit_config(d, config={"frame": {"image_size": 31}}), "image_size"),
    "other sizes": (
        lambda d: edit_config(d, config={}),
        "does not fit the VideoWorldModel.*of another shape",
    ),
    "corrupt weights": (corrupt_header, "is not a whole safetensors file"),
    "empty weights": (
        lambda d: (d / "model.safetensors").write_bytes(b""),
        "is not a whole safetensors file",
    ),
    "truncated weights": (truncate, "is not a whole safetensors file"),
    "missing tensor": (drop_a_tensor, "1 tensor missing"),
    "unknown tensor": (
        lambda d: edit_weights(d, lambda tensors: tensors.update(extra=torch.zeros(1))),
        r"1 tensor unknown \(extra\)",
    ),
    "other shape": (reshape_a_tensor, "1 tensor of another shape"),
    "not finite": (lambda d: change_a_tensor(d, lambda t: t.fill_(float("nan"))), "not finite"),
    "integers": (lambda d: change_a_tensor(d, lambda t: t.int()), "1 tensor of another kind of number"),
    "complex": (lambda d: change_a_tensor(d, lambda t: t.to(torch.complex64)), "another kind of number"),
    "terabytes": (
        lambda d: edit_config(d, config={"rssm": {"deter": 60_000, "hidden": 60_000, "stoch": 60_000}}),
        "does not fit the VideoWorldModel.*of another shape",
    ),
    "a million layers": (
        lambda d: edit_config(d, config={"frame": {"layers": 1_000_000}}),
        "layers is .*at most",
    ),
    "beyond all sizes": (lambda d: edit_config(d, config={"rssm": {"deter": 10**12}}), "deter is .*at most"),
    "huge integer": (lambda d: edit_config(d, config={"kl_scale": 10**400}), "config.json"),
    "deep json": (lambda d: (d / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
    "config a folder": (
        lambda d: ((d / "config.json").unlink(), (d / "config.json").mkdir()),
        "has no config.json",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_refused_in_one_sentence(case, saved):
    spoil, sentence = BROKEN[case]
    spoil(saved)
    with pytest.raises(CheckpointError) as error:
        from_pretrained(saved)
    assert re.search(sentence, str(error.value)), str(error.value)
    assert "\n" not in str(error.value) and str(saved) in str(error.value)


def test_another_class_is_refused_before_its_weights_are_read(saved):
    class Other(nn.Module):
        pass

    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds a VideoWorldModel, expected a Other"):
        from_pretrained(saved, expect=Other)


def test_the_expected_class_passes(saved):
    assert isinstance(from_pretrained(saved, expect=VideoWorldModel), VideoWorldModel)


def test_a_class_loads_its_own_and_refuses_another_by_name(saved):
    model = VideoWorldModel.from_pretrained(saved)
    assert type(model) is VideoWorldModel and (model.source, model.revision) == (str(saved), None)
    with pytest.raises(CheckpointError, match="holds a VideoWorldModel, expected a ActionWorldModel"):
        ActionWorldModel.from_pretrained(saved)
    again = model.save_pretrained(saved.parent / "again")
    assert (again / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="owner/name, got 'model'"):
        model.push_to_hub("model")


@pytest.mark.parametrize(
    "package", ["cwm_hub", "cwm_hub.hub", "cwm_hub.clips", "cwm_hub.shards", "cwm_hub.evaluation"]
)
def test_no_public_name_is_a_modules_too(package):
    """Importing the module would put it in the function's place: the second use of `cwm_hub.hub.publish` got it."""
    public = importlib.import_module(package)
    assert not {module.name for module in pkgutil.iter_modules(public.__path__)} & set(dir(public))


def test_an_unknown_name_suggests_the_embedded_one(tmp_path, monkeypatch, saved):
    monkeypatch.setattr(catalogue, "EMBEDDED", saved.parent)
    monkeypatch.chdir(tmp_path / "..")
    assert embedded_names() == ["contextwm-debug"]
    with pytest.raises(
        CheckpointError, match=r"no Hub id of the form owner/name; did you mean 'contextwm-debug'\?"
    ):
        from_pretrained("contextwm-debgu")
    assert isinstance(from_pretrained("contextwm-debug"), VideoWorldModel)


@pytest.mark.parametrize("path", ["/no/such/place", "./runs/absent", "runs/demo/hub/absent", "~/absent"])
def test_a_missing_directory_is_said_to_be_missing(path):
    with pytest.raises(CheckpointError, match=f"no such directory: {re.escape(path)}"):
        from_pretrained(path)


def test_no_name_and_the_home_of_nobody_are_one_sentence():
    with pytest.raises(CheckpointError, match=r"a checkpoint is named by a directory, .* got ' '"):
        from_pretrained(" ")
    with pytest.raises(
        CheckpointError, match=r"^~nobody-of-that-name/x: nobody has that home directory here$"
    ):
        from_pretrained("~nobody-of-that-name/x")


def test_a_directory_has_no_revisions(saved):
    with pytest.raises(CheckpointError, match="which is a directory and has none"):
        from_pretrained(saved, revision="v1")


def test_pushing_something_else_is_refused(tmp_path, saved):
    with pytest.raises(CheckpointError, match="no such directory"):
        push_to_hub(tmp_path / "absent", "someone/model")
    with pytest.raises(CheckpointError, match="is not a cwm_hub checkpoint"):
        push_to_hub(tmp_path, "someone/model")
    with pytest.raises(CheckpointError, match="owner/name, got 'model'"):
        push_to_hub(saved, "model")


def test_an_older_format_is_migrated(saved, monkeypatch):
    edit_config(saved, format_version=1, config={"renamed_scale": 2.0}, model_type="video_world_model")

    def rename(header: dict) -> dict:
        old = json.loads(json.dumps(header))
        return old | {"config": {"kl_scale": old["config"]["renamed_scale"]}}

    monkeypatch.setattr("cwm_hub.hub.checkpoint.FORMAT_VERSION", 2)
    monkeypatch.setattr("cwm_hub.hub.checkpoint.MIGRATIONS", {1: rename})
    assert find_checkpoint(saved).config().kl_scale == 2.0


def test_every_model_type_has_a_card_and_can_be_built_from_its_config():
    from cwm_hub.hub.model_kinds import USAGE

    assert USAGE.keys() == checkpoint.MODEL_TYPES.keys()
    for model_type in checkpoint.MODEL_TYPES:
        found = checkpoint.Checkpoint(model_type, None, Path)
        found.__dict__["header"] = {"model_type": model_type}
        assert dataclasses.is_dataclass(checkpoint._config_class(found.model_class))
