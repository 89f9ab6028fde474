"""Forward passes in the two memory formats, per backbone: what `vision/member.py` goes by.

    python tests/benchmarks/bench_memory_format.py [--device cuda] [BACKBONE ...]

Prints CPU milliseconds per frame (wall clock on a GPU) and the ratio channels-last / contiguous.
"""

import argparse
import time

import numpy as np
import torch

from dsdi_ray.vision.backbones import BACKBONES, build_backbone

_PASSES = 3


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbones", nargs="*", default=[*BACKBONES, "test_byobnet", "test_resnet"])
    parser.add_argument("--input-px", type=int, default=352, help="hrnet: a multiple of 32.")
    parser.add_argument("--frames", type=int, default=4, help="Per pass.")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'backbone':20} contiguous  channels-last  ratio   ({options.input_px} px)")
    for name in options.backbones:
        network = build_backbone(name, num_classes=37).eval().to(options.device)
        shape = (options.frames, 3, options.input_px, options.input_px)
        inputs = torch.rand(shape, device=options.device)
        took: dict[torch.memory_format, list[float]] = {}
        for _ in range(_PASSES):  # by turns, so that a change of the machine's speed hits both
            for layout in (torch.contiguous_format, torch.channels_last):
                seconds = _forward(
                    network.to(memory_format=layout), inputs.to(memory_format=layout)
                )
                took.setdefault(layout, []).append(seconds)
        plain, last = (1e3 * float(np.median(s)) / options.frames for s in took.values())
        print(f"{name:20} {plain:7.1f} ms {last:11.1f} ms {last / plain:7.2f}", flush=True)


@torch.inference_mode()
def _forward(network: torch.nn.Module, inputs: torch.Tensor) -> float:
    clock = time.process_time
    network(inputs[:1])
    if inputs.is_cuda:
        torch.cuda.synchronize()
        clock = time.perf_counter
    started = clock()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
        network(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return clock() - started


if __name__ == "__main__":
    main()
