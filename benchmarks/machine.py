"""A description of the machine, printed above the tables of the benchmarks."""

import os
import platform
from importlib.metadata import version

import numpy as np
import torch

from v3s.backbones.device import usable_cores
from v3s.video.warp import numba_version


def describe_machine() -> str:
    """Processor, threads and versions, on one line."""
    cpu = torch.cpu.get_capabilities()
    return (
        f"{cpu.get('cpu_name', platform.processor())}, {usable_cores()} cores, torch {torch.__version__} on "
        f"{torch.get_num_threads()} threads, numpy {np.__version__}, "
        f"numba {numba_version() or 'absent'}, v3s {version('v3s')}, load {os.getloadavg()[0]:.1f}"
    )
