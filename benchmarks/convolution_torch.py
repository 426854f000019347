"""The same network in PyTorch, for benchmarks/convolution.py, which starts this with an interpreter that has PyTorch.

For each line on standard input, one line of JSON on standard output: first what is run, then the seconds of a forward
and backward pass. Channels last, PyTorch's fastest format for convolutions on a CPU.
"""

import json
import sys
import time

import torch  # pyright: ignore[reportMissingImports]  # not a dependency: another interpreter runs this
from torch import nn  # pyright: ignore[reportMissingImports]


def block(channels_in, channels_out):
    """Return one block of Conv-4."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.MaxPool2d(2))


def main():
    """Answer line by line."""
    images, pixels, filters = map(int, sys.argv[1:])
    torch.manual_seed(0)
    blocks = [block(3, filters), *(block(filters, filters) for _ in range(3))]
    network = nn.Sequential(*blocks, nn.Flatten()).to(memory_format=torch.channels_last)
    batch = torch.rand(images, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)
    sys.stdin.readline()
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        network.zero_grad(set_to_none=True)
        network(batch).square().sum().backward()
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
