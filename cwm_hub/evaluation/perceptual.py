"""How far are videos apart to a network that has seen many? LPIPS, FVD, and a Fréchet distance of any features.

    distance            of what              network                      weights, in torch's cache
    lpips               frame against frame  AlexNet (ImageNet)           torchvision's own file
    fvd                 clips against clips  I3D (Kinetics-400)           i3d_torchscript.pt
    frechet_distance    features, any        the caller's                 -

The weights are the user's to fetch: nothing here downloads. torch's cache is `$TORCH_HOME/hub/checkpoints`, by default
`~/.cache/torch/hub/checkpoints`. Shape key: B clips, T frames, H W pixels, N M samples, E features.
"""

import hashlib
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

I3D_FILE = "i3d_torchscript.pt"
"""StyleGAN-V's TorchScript copy of the I3D network of the original FVD."""

I3D_URL = "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1"
"""Where its authors keep it."""

I3D_SIDE = 224
"""Height and width in pixels of what I3D takes."""

FVD_MIN_FRAMES = 10
"""Shortest clip: I3D divides time by eight and then averages over pairs, and public implementations begin at ten."""

FVD_NOTE = "few clips bias it upwards: compare it only with that of as many clips of as many frames"
"""What is said wherever an FVD is shown."""

_I3D_CLIPS = 4
"""Clips that pass through I3D at once: one of 25 frames is 15 MB there, and 42 MB behind the first layer."""

_AS_GIVEN = {"rescale": False, "resize": False, "return_features": True}
"""I3D's own switches: pixels are scaled and resized already, and logits are wanted rather than probabilities."""


class MetricUnavailableError(ValueError):
    """An optional metric was asked for and its weights are not on this machine, or do not fit what is measured."""


def frechet_distance(a: Float[Tensor, "N E"], b: Float[Tensor, "M E"]) -> float:
    """Fréchet distance of Gaussians fitted to two sets of features: |mu_a - mu_b|² + Tr(A + B - 2 (AB)^½).

    The trace of (AB)^½ is the nuclear norm of X_a X_bᵀ for centred features X, taken from QR factors, so that
    neither more features than samples nor the reverse costs more than the smaller of the two.
    Features of a network of one's own give a distance of its own: never call it FID or FVD.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a Fréchet distance needs two samples on each side, got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    centred_a = (a - a.mean(0)) / (len(a) - 1) ** 0.5
    centred_b = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    factor_a = torch.linalg.qr(centred_a, mode="r").R
    factor_b = torch.linalg.qr(centred_b, mode="r").R
    overlap = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + centred_a.square().sum() + centred_b.square().sum()
    return max(float(distance - 2 * overlap), 0.0)


# --- LPIPS


def check_lpips() -> None:
    """Refuse before the work begins what `lpips` would refuse after it.

    Raises:
        MetricUnavailableError: torchvision's AlexNet weights are not in torch's cache, or are not whole.
    """
    from torchvision.models import AlexNet_Weights, alexnet

    url = AlexNet_Weights.DEFAULT.url
    weights = _cached(Path(url).name)
    if not weights.is_file():
        raise MetricUnavailableError(
            f"LPIPS needs torchvision's AlexNet weights, and {weights} does not exist: "
            f"download {url} there, or leave LPIPS out"
        )
    try:
        alexnet(weights=AlexNet_Weights.DEFAULT)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise MetricUnavailableError(
            f"{weights} does not hold torchvision's AlexNet weights: download {url} there again, or leave LPIPS out"
        ) from error


def lpips(
    prediction: UInt8[Tensor, "*batch 3 H W"], target: UInt8[Tensor, "*batch 3 H W"]
) -> Float[Tensor, "*batch"]:
    """Learned perceptual distance of every frame (arXiv 1801.03924, AlexNet, version 0.1, as torchmetrics has it).

    Frames keep their size; 0 is an exact copy, and values of different sizes do not compare.

    Raises:
        MetricUnavailableError: see `check_lpips`.
    """
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    check_lpips()
    frames = [video.flatten(0, -4).float() / 127.5 - 1 for video in (prediction, target)]
    value = learned_perceptual_image_patch_similarity(frames[0], frames[1], net_type="alex", reduction="none")
    return value.reshape(prediction.shape[:-3])


# --- FVD


def check_fvd(frames: int) -> None:
    """Refuse before the work begins what `fvd` of clips of this many frames would refuse after it.

    Raises:
        MetricUnavailableError: I3D is not in torch's cache, or the file there is not I3D, or the clips are too short.
    """
    if frames < FVD_MIN_FRAMES:
        raise MetricUnavailableError(
            f"FVD needs clips of at least {FVD_MIN_FRAMES} frames, observed and predicted together, got {frames}: "
            "predict further, or leave FVD out"
        )
    _load_i3d(torch.device("cpu"))


def fvd(prediction: UInt8[Tensor, "B T 3 H W"], target: UInt8[Tensor, "M T 3 H W"]) -> float:
    """Fréchet video distance (arXiv 1812.01717) of two sets of clips, in the logits of I3D trained on Kinetics-400.

    Computed as StyleGAN-V does (arXiv 2112.14683), whose TorchScript copy of the original TensorFlow network is the
    one that is loaded: every frame is resized to 224x224 (bilinear, corners not aligned, no antialiasing) and scaled
    to [-1, 1]; the features of a clip are its 400 logits before the softmax, averaged over time. Its authors find
    the original FVD up to 1e-6 (github.com/universome/fvd-comparison) on clips that have 224 px already; the original
    resizes with TensorFlow's older rule. cd-fvd and VideoGPT use other I3D weights and give other values.

    An estimate from few clips is biased upwards: papers use 2048 or more, and fewer than 400 do not even span the
    features. Values compare only between equal numbers of clips of equal length.

    Raises:
        MetricUnavailableError: see `check_fvd`.
        ValueError: fewer than two clips on a side.
    """
    check_fvd(prediction.shape[1])
    network = _load_i3d(prediction.device)
    return frechet_distance(_i3d_logits(network, prediction), _i3d_logits(network, target))


def video_distance(
    prediction: UInt8[Tensor, "B T 3 H W"], video: UInt8[Tensor, "B T 3 H W"], observed_frames: int
) -> dict[str, Any]:
    """FVD of whole windows: the true observed frames followed by the predicted ones, against the true windows.

    Beside its value are the facts without which it says nothing: how many clips, of which frames, and the hash of the
    network's file, whose name does not say what is in it.

    Raises:
        MetricUnavailableError, ValueError: as `fvd`.
    """
    clips = torch.cat([video[:, :observed_frames], prediction[:, observed_frames:]], 1)
    distance = fvd(clips, video)
    with _cached(I3D_FILE).open("rb") as file:
        network = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "model": distance,
        "clips": len(clips),
        "observed_frames": observed_frames,
        "predicted_frames": clips.shape[1] - observed_frames,
        "network_sha256": network,
        "note": FVD_NOTE,
    }


def _load_i3d(device: torch.device) -> torch.jit.ScriptModule:
    path = _cached(I3D_FILE)
    if not path.is_file():
        raise MetricUnavailableError(
            f"FVD needs StyleGAN-V's I3D network, and {path} does not exist: "
            f"download {I3D_URL} there, or leave FVD out"
        )
    with warnings.catch_warnings():
        # torch would have models exported anew; this one exists as TorchScript only.
        warnings.filterwarnings("ignore", message="`torch.jit.load` is deprecated", category=FutureWarning)
        try:
            network = torch.jit.load(path, map_location=device).eval()
            switches = {argument.name for argument in network.forward.schema.arguments}
        except RuntimeError:
            switches = set()
    if not _AS_GIVEN.keys() <= switches:
        raise MetricUnavailableError(
            f"{path} is not the TorchScript of I3D: download {I3D_URL} there again, or leave FVD out"
        )
    return network


@torch.no_grad()
def _i3d_logits(network: torch.jit.ScriptModule, video: Tensor) -> Float[Tensor, "B E"]:
    return torch.cat([network(_i3d_input(clips), **_AS_GIVEN) for clips in video.split(_I3D_CLIPS)])


def _i3d_input(video: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B 3 T side side"]:
    frames = interpolate(video.flatten(0, 1).float(), (I3D_SIDE, I3D_SIDE), mode="bilinear")
    return (frames / 127.5 - 1).unflatten(0, video.shape[:2]).transpose(1, 2).contiguous()


def _cached(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / name
