"""Checkpoints come back as they were, in one line, and every way in which they can be wrong is one sentence."""

import dataclasses
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from torch import nn

from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.drqv2 import DrQV2Agent, DrQV2Config
from cwm_hub.config import override, to_dict
from cwm_hub.evaluation.protocol import Protocol
from cwm_hub.hub import catalogue, checkpoint, embedded_names
from cwm_hub.hub.checkpoint import CheckpointError
from cwm_hub.hub.names import find_checkpoint
from cwm_hub.hub.pretrained import from_pretrained, push_to_hub
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.registry import DEBUG_FRAME, DEBUG_RSSM, create_model
from cwm_hub.models.video_world_model import VideoWorldModel

TRAIN = {
    "recipe": "recipes/pretrain.py",
    "preset": "contextwm-debug",
    "updates": 300,
    "seconds": 41.5,
    "config": {"learning_rate": 3e-4, "updates": 1_200_000},
    "command": "accelerate launch recipes/pretrain.py | tee log",
    "versions": {"torch": "2.15.0", "cwm_hub": "0.1.0"},
    "parents": {
        "shards": [
            {
                "root": "hf://datasets/someone/clips",
                "name": "clips",
                "manifest_hash": "5e1f" * 16,
                "clips": 20,
                "frames": 900,
            }
        ],
        "init": {"name": "contextwm-tiny", "revision": None, "weights_sha256": "ab" * 32},
    },
}


def score(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.5, "high": mean + 0.5, "per_step": {}}


SUMMARY = {
    "windows": 8,
    "videos": 5,
    "model": {"psnr_db": score(21.25), "ssim": score(0.4)},
    "copy_last_frame": {"psnr_db": score(23.0), "ssim": score(0.6)},
    "mean_frame": {"psnr_db": score(15.5), "ssim": score(0.2)},
    "model_minus_copy_last_frame": {"psnr_db": score(-1.75), "ssim": score(-0.2)},
}
SCORECARD = {
    "format_version": 1,
    "protocol": to_dict(
        Protocol(horizon=7, data={"clips": "5e1f"}, windows=(("clips", "film", "a", 0),) * 8)
    ),
    "together": SUMMARY,
    "sources": {"clips": SUMMARY},
}


@pytest.fixture
def model() -> VideoWorldModel:
    torch.manual_seed(0)
    model = create_model("contextwm-debug")
    for buffer in model.buffers():  # running means and variances, which a fresh model has at 0 and 1
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def saved(model, tmp_path) -> Path:
    return save_pretrained(model, tmp_path / "contextwm-debug", train=TRAIN, scorecard=SCORECARD)


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


# --- writing


def test_saving_again_replaces_the_whole_checkpoint(model, saved):
    save_pretrained(model, saved, card=False)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_old_checkpoint_and_no_litter(model, saved, tmp_path):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(CheckpointError, match=r"asset prediction\.mp4: no such file"):
        save_pretrained(model, saved, assets={"prediction.mp4": tmp_path / "absent.mp4"})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_save_interrupted_between_the_renames_puts_the_old_one_back(model, saved, monkeypatch):
    rename = Path.rename

    def interrupted(self, target):
        if ".new-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(model, saved)
    monkeypatch.undo()
    assert from_pretrained(saved) is not None
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


DISK_FULL = """
import resource, signal, sys
from cwm_hub import create_model, save_pretrained
from cwm_hub.hub import CheckpointError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_pretrained(create_model("contextwm-debug"), sys.argv[1])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_one_sentence_and_the_old_one_stays(saved):
    """A limit on file sizes fails in the middle of the weights, as a full disk does."""
    before = (saved / "model.safetensors").read_bytes()
    command = [sys.executable, "-c", DISK_FULL, saved]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"cannot write {saved}: ") and said.count("\n") == 1
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_link_to_a_checkpoint_stays_a_link(model, saved):
    link = saved.parent / "latest"
    link.symlink_to(saved)
    save_pretrained(model, link, card=False)
    assert link.is_symlink() and not (saved / "README.md").exists()
    assert sorted(path.name for path in saved.parent.iterdir()) == sorted([saved.name, "latest"])


def test_somebody_elses_directory_is_never_replaced(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"not a checkpoint's \(thesis\.tex\); save somewhere else"):
        save_pretrained(model, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_checkpoint_inside_a_clone_keeps_its_git_folder(model, saved):
    (saved / ".git").mkdir()
    with pytest.raises(CheckpointError, match=r"\(\.git\)"):
        save_pretrained(model, saved)


def test_a_file_in_the_way_is_refused(model, tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(CheckpointError, match="is a file; a checkpoint is a directory"):
        save_pretrained(model, tmp_path / "model")


def test_pickles_are_not_published(model, saved, tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt may not be published"):
        save_pretrained(model, tmp_path / "model", assets={"optimizer.pt": tmp_path / "optimizer.pt"})
    (saved / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt may not be published"):
        push_to_hub(saved, "someone/model")


@pytest.mark.parametrize("name", ["../film.png", "in/film.png", "config.json", "README.md"])
def test_an_asset_is_a_further_file_of_the_checkpoint(name, model, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"picture")
    with pytest.raises(CheckpointError, match="is no name for a further file"):
        save_pretrained(model, tmp_path / "place", assets={name: tmp_path / "picture.png"})
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_only_the_house_models_can_be_saved(tmp_path):
    with pytest.raises(CheckpointError, match="a Linear has no model_type"):
        save_pretrained(nn.Linear(1, 1), tmp_path / "model")


# --- reading what is wrong


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


# --- the card


MALFORMED = {
    "scorecard.json": [
        {"together": SUMMARY, "sources": {"clips": {"windows": 8, "model": {"psnr_db": {"mean": "high"}}}}},
        {"sources": []},
        {"protocol": 3},
        {"sources": {"clips": {"model": {}}}},
    ],
    "train.json": [
        {"parents": []},
        {"config": 3},
        {"evaluation": {"score": "high", "episodes": 1}},
        {"parents": {"shards": [3]}},
    ],
}


@pytest.mark.parametrize("file", MALFORMED)
@pytest.mark.parametrize("case", range(4))
def test_a_file_of_another_form_is_one_sentence(file, case, model, tmp_path):
    with pytest.raises(
        CheckpointError, match=rf"{file} does not have the form that the recipes write"
    ) as error:
        save_pretrained(model, tmp_path / "model", **{file.split(".")[0]: MALFORMED[file][case]})
    assert "\n" not in str(error.value) and not (tmp_path / "model").exists()


def test_texts_of_the_files_are_inert_in_the_card(model, tmp_path):
    hostile = "<img src=x>\n\n# Big\n\n| a | b |\n---\n"
    train = json.loads(json.dumps(TRAIN)) | {
        "preset": hostile,
        "versions": {hostile: hostile},
        "device": hostile,
    }
    train["parents"]["shards"][0] |= {"name": hostile, "licence": hostile, "manifest_hash": hostile}
    train["parents"]["init"] |= {"name": hostile, "revision": hostile}
    scorecard = SCORECARD | {
        "sources": {hostile: SUMMARY},
        "protocol": SCORECARD["protocol"] | {"split": hostile},
    }
    saved = save_pretrained(model, tmp_path / "m", train=train, scorecard=scorecard, name=f"a/{hostile}")
    card = ModelCard.load(saved / "README.md")
    page = MarkdownIt("commonmark").enable("table").render(card.text)
    plain = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(
            (save_pretrained(model, tmp_path / "p", train=TRAIN, scorecard=SCORECARD) / "README.md")
            .read_text()
            .split("---\n", 2)[2]
        )
    )
    assert "<img" not in page and page.count("<table>") == plain.count("<table>")
    assert [page.count(f"<h{n}>") for n in (1, 2, 3)] == [plain.count(f"<h{n}>") for n in (1, 2, 3)]
    assert card.data.eval_results[0].dataset_name == " ".join(hostile.split())


def test_an_edited_card_survives_the_next_save(model, saved):
    card = saved / "README.md"
    card.write_text(card.read_text().replace("# contextwm-debug\n", "# Ours\n\nRead me.\n"))
    save_pretrained(model, saved, train=TRAIN)
    assert "# Ours\n\nRead me.\n" in card.read_text() and "21.25" not in card.read_text()
    save_pretrained(model, saved, train=TRAIN, replace_card=True)
    assert "Read me." not in card.read_text() and "# contextwm-debug\n" in card.read_text()


def test_secrets_and_homes_do_not_reach_the_directory(model, tmp_path):
    train = json.loads(json.dumps(TRAIN)) | {
        "command": f"pretrain.py --run {Path.home()}/runs/x --data /data/mine/y"
    }
    train["parents"]["shards"][0]["root"] = "https://anna:geheim@example.org/clips"
    saved = save_pretrained(model, tmp_path / "m", train=train)
    assert (
        find_checkpoint(saved).read("train.json")["command"]
        == "pretrain.py --run ~/runs/x --data /data/mine/y"
    )
    for path in saved.glob("*.[jm]*"):
        assert "geheim" not in path.read_text() and str(Path.home()) + "/" not in path.read_text()
    assert "| command | pretrain.py --run .../x --data .../y |" in (saved / "README.md").read_text()


@pytest.mark.parametrize(("redistributable", "licence"), [(True, "mit"), (False, "other"), (None, "mit")])
def test_the_licence_follows_the_videos_unless_it_is_given(redistributable, licence, model, tmp_path):
    train = json.loads(json.dumps(TRAIN))
    train["parents"]["shards"][0]["redistributable"] = redistributable
    saved = save_pretrained(model, tmp_path / "m", train=train)
    assert ModelCard.load(saved / "README.md").data.license == licence
    saved = save_pretrained(model, tmp_path / "m", train=train, licence="cc-by-4.0")
    assert ModelCard.load(saved / "README.md").data.license == "cc-by-4.0"


def test_the_front_matter_parses_and_carries_the_scores(saved):
    data = ModelCard.load(saved / "README.md").data
    assert (data.library_name, data.license, data.pipeline_tag) == ("cwm-hub", "mit", "video-to-video")
    assert data.datasets == ["someone/clips"] and "arxiv:2305.18499" in data.tags
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    assert results == {"psnr_db": 21.25, "ssim": 0.4}


def test_the_card_shows_what_the_files_say(saved):
    text = (saved / "README.md").read_text()
    for fact in (
        "arXiv 2305.18499",
        "5e1f" * 16,
        "| updates | 300 |",
        "| learning rate | 0.0003 |",
        r"| command | accelerate launch recipes/pretrain.py \| tee log |",
        "| this model | 21.25 [20.75, 21.75] | 0.400 [-0.100, 0.900] |",
        "| copy-last-frame | 23.00 [22.50, 23.50] | 0.600 [0.100, 1.100] |",
        "**clips** (8 validation windows of 5 videos)",
        "95 % bootstrap intervals, which resample source videos.",
        "| this model minus copy-last-frame | -1.75 [-2.25, -1.25] |",
        "horizon 7",
        "Initial weights: `contextwm-tiny`",
        "@inproceedings{wu2023contextwm,",
        '"image_size": 32',
    ):
        assert fact in text, fact
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:  # every row as wide as its header, or the page shows bars instead of a table
        assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1, table


def test_the_card_shows_lpips_and_fvd_where_they_were_measured(model, tmp_path, saved):
    fvd = {
        "model": 512.34,
        "clips": 8,
        "observed_frames": 5,
        "predicted_frames": 7,
        "note": "few clips bias it",
    }
    scored = SUMMARY | {"model": SUMMARY["model"] | {"lpips": score(0.7)}}
    scorecard = SCORECARD | {"sources": {"clips": scored}, "fvd": fvd}
    text = (save_pretrained(model, tmp_path / "measured", scorecard=scorecard) / "README.md").read_text()
    assert "| | PSNR (dB) | SSIM | LPIPS (AlexNet, lower is better) |" in text
    assert "| this model | 21.25 [20.75, 21.75] | 0.400 [-0.100, 0.900] | 0.700 [0.200, 1.200] |" in text
    assert "| copy-last-frame | 23.00 [22.50, 23.50] | 0.600 [0.100, 1.100] | - |" in text
    said = " ".join(text.split())
    assert (
        "FVD of 8 windows, 5 true frames followed by 7 predicted ones: 512.3; lower is better, and few"
        in said
    )
    assert "FVD" not in (saved / "README.md").read_text() and "LPIPS" not in (saved / "README.md").read_text()


def test_the_card_of_an_agent_shows_its_task_and_episodes(tmp_path):
    evaluation = {"score": 12.345, "success_rate": 0.4, "episodes": 10}
    train = {
        "task": "metaworld:reach",
        "agent_steps": 9000,
        "seed": 1,
        "evaluation": evaluation,
        "parents": {"init": None},
    }
    directory = save_pretrained(debug_model("dreamer_agent"), tmp_path / "agent", train=train)
    card = ModelCard.load(directory / "README.md")
    assert "| agent steps | 9000 |" in card.text and "| task | metaworld:reach |" in card.text
    assert "Mean of 10 evaluation episodes" in card.text and "success rate 0.40" in card.text
    results = {
        result.metric_type: (result.dataset_name, result.metric_value) for result in card.data.eval_results
    }
    assert results == {"score": ("metaworld:reach", 12.345), "success_rate": ("metaworld:reach", 0.4)}


def test_a_card_claims_nothing_that_was_not_measured(model, tmp_path):
    directory = save_pretrained(model, tmp_path / "bare")
    text = (directory / "README.md").read_text()
    assert "Nothing yet." in text and text.count("Not recorded.") == 2
    assert ModelCard.load(directory / "README.md").data.eval_results is None
    assert "<video" not in text and "dB" not in text


def test_the_card_shows_its_video_and_pictures(model, tmp_path):
    names = ("prediction.mp4", "a_grid.png", "prediction.png")
    for name in names:
        (tmp_path / name).write_bytes(b"picture")
    assets = {name: tmp_path / name for name in names}
    directory = save_pretrained(model, tmp_path / "model", assets=assets)
    text = (directory / "README.md").read_text()
    assert '<video src="prediction.mp4"' in text and "![a grid](a_grid.png)" in text
    assert text.index("(prediction.png)") < text.index("(a_grid.png)")
    assert (directory / "prediction.mp4").read_bytes() == b"picture"


def debug_model(model_type: str) -> nn.Module:
    """The smallest model of each type."""
    action = override(
        ActionWorldModelConfig(action_size=2),
        {"frame": DEBUG_FRAME, "rssm": DEBUG_RSSM, "video_rssm": DEBUG_RSSM},
    )
    return {
        "video_world_model": lambda: create_model("contextwm-debug"),
        "action_world_model": lambda: ActionWorldModel(action),
        "dreamer_agent": lambda: DreamerAgent(DreamerConfig(world=action)),
        "drqv2_agent": lambda: DrQV2Agent(DrQV2Config(action_size=2, image_size=32, hidden_units=8)),
    }[model_type]()


@pytest.mark.parametrize(
    "model_type",
    [
        "video_world_model",
        pytest.param("action_world_model", marks=pytest.mark.slow),
        pytest.param("dreamer_agent", marks=pytest.mark.slow),
        pytest.param("drqv2_agent", marks=pytest.mark.slow),
    ],
)
def test_the_snippet_of_the_card_runs_as_it_stands(model_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = save_pretrained(debug_model(model_type), "published/model")
    assert json.loads((saved / "config.json").read_text())["model_type"] == model_type
    (snippet,) = re.findall(r"```python\n(.*?)```", (saved / "README.md").read_text(), flags=re.DOTALL)
    assert 'from_pretrained("published/model")' in snippet
    subprocess.run([sys.executable, "-W", "error", "-c", snippet], check=True)


def test_the_card_can_name_another_place(model, tmp_path):
    directory = save_pretrained(model, tmp_path / "model", name="someone/contextwm")
    assert 'from_pretrained("someone/contextwm")' in (directory / "README.md").read_text()
