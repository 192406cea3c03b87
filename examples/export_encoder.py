"""The image encoder alone, for programs without Python: pixels in, embedding out.

    python examples/export_encoder.py contextwm-tiny encoder.pt2     # torch.export, which torch reads in C++ too
    python examples/export_encoder.py contextwm-tiny encoder.onnx    # needs: pip install onnx onnxscript

The input is uint8 RGB [N, 3, H, W] with any N: the division by 255 is in the graph.
"""

import argparse
import importlib.util

import torch
from torch import Tensor, nn

from cwm_hub import VideoWorldModel


class Encoder(nn.Module):
    """`VideoWorldModel.encode` without the world model around it."""

    def __init__(self, model: VideoWorldModel):
        super().__init__()
        self.encoder = model.frame_model.encoder

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings [N, E]."""
        return self.encoder(image.float() / 255 - 0.5)


def main() -> None:
    """Write the file and say how far what it computes is from the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="of a video world model")
    parser.add_argument("file", help="ends in .pt2 or .onnx")
    args = parser.parse_args()
    if args.file.endswith(".onnx") and importlib.util.find_spec("onnxscript") is None:
        parser.error("a .onnx file needs: pip install onnx onnxscript")
    model = VideoWorldModel.from_pretrained(args.checkpoint)
    side = model.image_size
    image = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    program = torch.export.export(
        Encoder(model).eval(), (image,), dynamic_shapes={"image": {0: torch.export.Dim("N", min=1)}}
    )
    if args.file.endswith(".onnx"):
        torch.onnx.export(program, f=args.file, input_names=["image"], output_names=["embed"])
        print(f"wrote {args.file}")
        return
    torch.export.save(program, args.file)
    again = torch.export.load(args.file).module()(image[:2])
    print(f"wrote {args.file}; largest difference {(again - model.encode(image[:2])).abs().max():.1e}")


if __name__ == "__main__":
    main()
