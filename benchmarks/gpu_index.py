"""How fast a GPU's encoder is fed: an index run with ViT-B/32 of open_clip in bf16, and what bounds it.

Random weights serve for speed. The cores decode while the GPU encodes, so that no run can be faster than the slower
of the two alone. Without a CUDA GPU this says so in one line and ends.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from common import parser, write_report
from index_rate import DECODE, ENCODE, HOW, INDEX, heading, measure, shares, stages_table
from pictures import photographs

from mmsearch.encoders.registry import load_encoder

ARCHITECTURE = "ViT-B-32"


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(model=ARCHITECTURE)
    options.add_argument("--device", default="cuda", help="`cpu` shows that the script works")
    options.add_argument("--precision", default="bf16", help="of the encoder")
    options.add_argument("--large", type=int, default=1_000, help="pictures of 12 megapixels")
    options.add_argument("--small", type=int, default=10_000, help="pictures of 0.8 megapixels")
    options.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turns")
    args = options.parse_args()
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA GPU here; nothing was measured.", file=sys.stderr)
        return
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "the processor"
    sets = [("12 megapixels", args.large, (4000, 3000)), ("0.8 megapixels", args.small, (1024, 768))]
    if args.quick:
        args.rounds, sets = 1, [("0.1 megapixels", 8, (400, 300))]
    parts = []
    with tempfile.TemporaryDirectory() as checkpoints:
        weights = random_weights(args.model, Path(checkpoints))
        encoder = load_encoder(f"{args.model}/{weights}", device=args.device, precision=args.precision)
        parts.append(f"{encoder.space.dimension} dimensions, {encoder.batch_size} pictures a batch, encoded on {name}.")
        for title, count, size in sets:
            with tempfile.TemporaryDirectory() as folder:
                paths = photographs(Path(folder) / "pictures", count, *size)
                wall, cpu = measure(Path(folder), paths, encoder, args.rounds)
                slower = max((DECODE, ENCODE), key=lambda stage: statistics.median(wall[stage]))
                share = statistics.median(shares(wall[slower], wall[INDEX]))
                parts += [
                    heading(title, paths),
                    stages_table(wall, cpu, count),
                    f"What bounds it is to {slower}: the run reaches {share:.0%} of that alone.",
                ]
    write_report(
        args,
        f"Index rate with {args.model} in {args.precision} on a GPU",
        [*parts, HOW],
        ["torch", "open_clip_torch", "numpy", "pillow"],
    )


def random_weights(architecture: str, folder: Path) -> Path:
    """A checkpoint of an open_clip architecture as it is before training."""
    import torch

    from mmsearch.encoders.openclip_library import open_clip, quiet

    torch.manual_seed(0)
    with quiet():
        model = open_clip().create_model(architecture)
    path = folder / "random.pt"
    torch.save(model.state_dict(), path)
    return path


if __name__ == "__main__":
    main()
