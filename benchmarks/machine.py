"""What every table of the benchmarks says of the machine that it was measured on."""

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch


def describe_machine() -> str:
    """Processor, threads and versions, on one line."""
    cpu = torch.cpu.get_capabilities()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    numba = version("numba") if find_spec("numba") else "absent"
    return (
        f"{cpu.get('cpu_name', platform.processor())}, {cores} cores, torch {torch.__version__} on "
        f"{torch.get_num_threads()} threads, numpy {np.__version__}, numba {numba}, v3s {version('v3s')}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
