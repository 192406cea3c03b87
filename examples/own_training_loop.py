"""A training loop of one's own: our loader and model, plain torch around them.

    python examples/own_training_loop.py shards/mine --model contextwm-tiny --updates 1000

`model(video, is_first)` gives the loss in nats a frame and the numbers to log; the rest is yours.
`recipes/pretrain.py` adds processes, mixed precision, checkpoints, resuming and evaluation.
"""

import argparse

import torch

from cwm_hub import ClipLoader, create_model
from cwm_hub.clips import ClipSource


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="shard directory or URL")
    parser.add_argument("--model", default="contextwm-tiny")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--batch-clips", type=int, default=8)
    parser.add_argument("--window-frames", type=int, default=16)
    parser.add_argument("--out", default="runs/mine/model")
    args = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = create_model(args.model).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-4, eps=1e-5, weight_decay=1e-6)
    loader = ClipLoader(
        [ClipSource(args.shards)], batch_clips=args.batch_clips, window_frames=args.window_frames, seed=0
    )
    for update, batch in zip(range(1, args.updates + 1), loader, strict=False):  # the loader has no end
        loss, metrics = model(batch.video.to(device), batch.is_first.to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
        if update % 10 == 0 or update == 1:
            said = "  ".join(f"{name} {value:8.2f}" for name, value in metrics.items())
            print(f"{update:>6}  {said}")
    place = model.save_pretrained(
        args.out, train={"updates": args.updates, "recipe": "examples/own_training_loop.py"}
    )
    print(f"saved to {place}")


if __name__ == "__main__":
    main()
