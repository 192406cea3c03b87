"""LPIPS and FVD with stand-in networks, and the Fréchet distance: answers worked out in the comment above them."""

import inspect
import warnings
from pathlib import Path

import pytest
import torch
from stand_in_networks import StandInI3D, write_alexnet, write_i3d
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.models import alexnet

from cwm_hub.evaluation import perceptual
from cwm_hub.evaluation.perceptual import MetricUnavailableError

# --- Fréchet distance


def test_frechet_distance_of_two_gaussians_on_one_axis():
    # {-1, 1}: mean 0, variance 2. {-2, 4}: mean 1, variance 18. 1² + 2 + 18 - 2 sqrt(36) = 9.
    assert perceptual.frechet_distance(
        torch.tensor([[-1.0], [1.0]]), torch.tensor([[-2.0], [4.0]])
    ) == pytest.approx(9.0)


def test_frechet_distance_of_a_shift_is_its_square():
    features = torch.randn(6, 40, generator=torch.manual_seed(1))
    shift = torch.zeros(40)
    shift[3], shift[7] = 3.0, 4.0
    assert perceptual.frechet_distance(features, features) == pytest.approx(0.0, abs=1e-9)
    assert perceptual.frechet_distance(features, features + shift) == pytest.approx(25.0, rel=1e-6)


def test_frechet_distance_agrees_with_torchmetrics():
    generator = torch.manual_seed(2)
    a = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(200, 5, generator=generator, dtype=torch.float64) * 1.7 + 0.4
    features = torch.nn.Identity()
    features.num_features = 5
    oracle = FrechetInceptionDistance(feature=features)
    oracle.update(a, real=True)
    oracle.update(b, real=False)
    assert perceptual.frechet_distance(a, b) == pytest.approx(oracle.compute().item(), rel=1e-6)


def test_frechet_distance_needs_two_samples():
    with pytest.raises(ValueError, match="two samples on each side, got 1 and 4"):
        perceptual.frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))


# --- LPIPS


@pytest.fixture(scope="module")
def alexnet_home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("torch_home")
    write_alexnet(home)
    return home


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_lpips_is_the_published_formula_for_every_frame(alexnet_home, monkeypatch):
    # Zhang et al. (2018), equation 1: unit-length activations, squared differences weighted by channel, averaged over
    # the picture and summed over five layers; inputs in [-1, 1], shifted and scaled as ImageNet's.
    monkeypatch.setenv("TORCH_HOME", str(alexnet_home))
    a, b = noise(0, 2, 3, 3, 40, 40), noise(1, 2, 3, 3, 40, 40)
    network = alexnet(weights="DEFAULT").features[:12].eval()
    heads = Path(inspect.getfile(torchmetrics_lpips)).with_name("lpips_models") / "alex.pth"
    weights = torch.load(heads, map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def layers(video: torch.Tensor) -> list[torch.Tensor]:
        at = ((video.flatten(0, 1) / 127.5 - 1) - shift[:, None, None]) / scale[:, None, None]
        taken = []
        for number, layer in enumerate(network):
            at = layer(at)
            if number in (1, 4, 7, 9, 11):
                taken.append(at / at.norm(dim=1, keepdim=True).clamp(min=1e-4))
        return taken

    with torch.no_grad():
        expected = sum(
            ((x - y).square() * weights[f"lin{layer}.model.1.weight"]).sum(1).mean((1, 2))
            for layer, (x, y) in enumerate(zip(layers(a), layers(b), strict=True))
        ).unflatten(0, (2, 3))
    value = perceptual.lpips(a, b)
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)
    assert value.min() > 0


def test_lpips_of_an_exact_copy_is_zero(alexnet_home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(alexnet_home))
    video = noise(2, 1, 2, 3, 40, 40)
    changed = video.clone()
    changed[0, 1, :, :20] = 255
    assert perceptual.lpips(video, video).tolist() == [[0.0, 0.0]]
    first, second = perceptual.lpips(changed, video)[0].tolist()
    assert first == 0.0 and second > 0.0
    assert perceptual.lpips(changed[:, 1], video[:, 1]).tolist() == pytest.approx([second])  # one frame alone


def test_lpips_without_weights_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    sentence = (
        r"LPIPS needs torchvision's AlexNet weights.*alexnet-owt-7be5be79.pth does not exist: download https"
    )
    with pytest.raises(MetricUnavailableError, match=sentence):
        perceptual.lpips(noise(0, 1, 3, 40, 40), noise(0, 1, 3, 40, 40))


def test_weights_that_are_not_whole_are_one_sentence(alexnet_home, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    whole = next((alexnet_home / "hub/checkpoints").iterdir())
    broken = tmp_path / "hub/checkpoints" / whole.name
    broken.parent.mkdir(parents=True)
    with whole.open("rb") as file:
        beginning = file.read(100_000)
    for content in (b"", b"<html>not found</html>", beginning):
        broken.write_bytes(content)
        with pytest.raises(MetricUnavailableError, match="does not hold torchvision's AlexNet weights"):
            perceptual.check_lpips()


# --- FVD


@pytest.fixture
def i3d_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return write_i3d(tmp_path)


def clips(red: list[int], first_green: int) -> torch.Tensor:
    """Ten frames a clip: red throughout, green in the first frame alone (0 after it)."""
    video = torch.zeros(len(red), 10, 3, 16, 16, dtype=torch.uint8)
    video[:, :, 0] = torch.tensor(red, dtype=torch.uint8)[:, None, None, None]
    video[:, 0, 1] = first_green
    return video


def test_fvd_by_hand(i3d_file):
    # Scaled to [-1, 1], red is -1, 1, ... in the target and -0.2, 0.2, ... in the prediction: means 0, variances of
    # six clips 6/5 and 0.04 * 6/5 = 0.048. First green: -0.6 and 0.6 everywhere. The distance is
    # 1.2² + 1.2 + 0.048 - 2 sqrt(1.2 * 0.048) = 1.44 + 1.248 - 0.48 = 2.208.
    target, prediction = clips([0, 255] * 3, 51), clips([102, 153] * 3, 204)
    assert perceptual.fvd(prediction, target) == pytest.approx(2.208, abs=1e-5)
    assert perceptual.fvd(target, target) == pytest.approx(0.0, abs=1e-6)


def test_fvd_takes_sets_of_different_sizes(i3d_file):
    # {-1, 1} against six of them: variances 2 and 6/5, so 2 + 1.2 - 2 sqrt(2.4).
    value = perceptual.fvd(clips([0, 255], 51), clips([0, 255] * 3, 51))
    assert value == pytest.approx(3.2 - 2 * 2.4**0.5, abs=1e-5)


def test_fvd_says_nothing_of_how_its_network_is_stored(i3d_file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perceptual.fvd(clips([0, 255], 0), clips([0, 255], 0))


def test_fvd_without_its_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    sentence = r"FVD needs StyleGAN-V's I3D network.*hub/checkpoints/i3d_torchscript.pt does not exist: download https"
    with pytest.raises(MetricUnavailableError, match=sentence):
        perceptual.fvd(clips([0, 255], 0), clips([0, 255], 0))


def test_a_file_that_is_not_i3d_is_one_sentence(i3d_file):
    i3d_file.write_bytes(b"<html>not found</html>")
    with pytest.raises(MetricUnavailableError, match="is not the TorchScript of I3D: download https"):
        perceptual.check_fvd(25)
    torch.save(StandInI3D().state_dict(), i3d_file)
    with pytest.raises(MetricUnavailableError, match="is not the TorchScript of I3D"):
        perceptual.check_fvd(25)
    torch.jit.script(torch.nn.Linear(2, 2)).save(i3d_file)
    with pytest.raises(MetricUnavailableError, match="is not the TorchScript of I3D"):
        perceptual.check_fvd(25)


def test_fvd_of_short_clips_or_a_single_one_is_refused(i3d_file):
    with pytest.raises(
        MetricUnavailableError, match="at least 10 frames, observed and predicted together, got 9"
    ):
        perceptual.fvd(clips([0, 255], 0)[:, :9], clips([0, 255], 0)[:, :9])
    with pytest.raises(ValueError, match="two samples on each side, got 1 and 2"):
        perceptual.fvd(clips([0], 0), clips([0, 255], 0))


def test_fvd_is_of_true_observed_frames_and_predicted_ones(monkeypatch, tmp_path):
    # The stand-in's features are the red of the clip and the green of the first frame. All is white in the
    # truth, black in the prediction; the first five frames of ten are observed, and so are the true ones: the red mean
    # is 0 against 1, the green of the first frame equal, and no clip differs from another: 1² = 1.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    write_i3d(tmp_path)
    video = torch.full((2, 10, 3, 8, 8), 255, dtype=torch.uint8)
    distance = perceptual.video_distance(torch.zeros_like(video), video, observed_frames=5)
    assert distance["model"] == pytest.approx(1.0, abs=1e-5)
