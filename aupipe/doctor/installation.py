"""What is installed: Python, the packages, what FFmpeg decodes, the GPUs that torch can use."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from aupipe.doctor import Finding
from aupipe.errors import named

LIBRARIES = ("torch", "torchvision", "transformers", "timm", "librosa", "cv2", "av", "h5py", "dask", "distributed")
SHARED_MODULES = {  # packages that overwrite each other's files
    "cv2": ("opencv-python-headless", "the server build, which needs no libGL"),
    "onnxruntime": ("onnxruntime-gpu on a machine with a GPU, else onnxruntime", "one of them"),
}
DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "aac", "mp3", "opus", "vorbis", "ac3", "flac")
DRIVER_FILE = Path("/proc/driver/nvidia/version")
FEW_FILES = 4096  # descriptors; each worker process has tens, each Dask worker hundreds


def examine_installation() -> Iterator[Finding]:
    """Findings of what needs no project."""
    yield _examine_python()
    yield from map(_examine_library, LIBRARIES)
    yield from _examine_owners()
    yield _examine_decoders()
    yield from _examine_gpus()
    yield _examine_limits()


def _examine_python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    bits = sys.maxsize.bit_length() + 1
    if bits < 64:
        return Finding("FAIL", "Python", f"{found}, {bits} bits", "install a 64-bit Python: stores are mapped")
    return Finding("PASS", "Python", found)


def _examine_library(module: str) -> Finding:
    """A library is imported, since one that is installed may still not load."""
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # broken installations raise anything
        hint = "install aupipe again into a new virtual environment: pip install -e ."
        return Finding("FAIL", module, named(error), hint)
    return Finding("PASS", module, str(getattr(imported, "__version__", "of no stated version")))


def _examine_owners() -> Iterator[Finding]:
    """Modules that several installed packages bring: whichever was installed last has overwritten the others."""
    owners = metadata.packages_distributions()
    for module, (package, why) in SHARED_MODULES.items():
        packages = sorted(set(owners.get(module, ())))
        if len(packages) > 1:
            remedy = f"pip uninstall {' '.join(packages)}, then pip install {package} ({why})"
            found = f"comes from {len(packages)} packages: {', '.join(packages)}"
            yield Finding("FAIL", f"owner of {module}", found, remedy)
        elif packages:
            yield Finding("PASS", f"owner of {module}", f"{packages[0]} {metadata.version(packages[0])}")
        else:  # onnxruntime: the others are imported above
            remedy = f"pip install {package}, if you use ONNX networks or extract on a CPU"
            yield Finding("WARN", f"owner of {module}", "not installed", remedy)


def _examine_decoders() -> Finding:
    import av

    version = f"FFmpeg {av.ffmpeg_version_info} in PyAV"
    missing = [name for name in DECODERS if not _is_decoder(name)]
    if missing:
        remedy = "install the wheel of PyAV from your package index: pip install --force-reinstall --only-binary av av"
        return Finding("WARN", "decoders", f"{version} lacks {', '.join(missing)}", remedy)
    return Finding("PASS", "decoders", f"{version}: {', '.join(DECODERS)}")


def _is_decoder(name: str) -> bool:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, "r")
    except UnknownCodecError:
        return False
    return True


def _examine_gpus() -> Iterator[Finding]:
    try:
        import torch
    except Exception:  # said above
        return
    has_driver = DRIVER_FILE.exists() or shutil.which("nvidia-smi") is not None
    if not torch.cuda.is_available():
        built = torch.version.cuda
        if not has_driver:
            yield Finding("PASS", "GPU", "no NVIDIA driver on this machine: extraction and training run on the CPU")
        elif built is None:
            remedy = "install the CUDA build of torch and torchvision (pytorch.org, Get started)"
            yield Finding("FAIL", "GPU", "there is a driver, and this torch is a build for CPUs", remedy)
        else:
            remedy = f"update the driver to one for CUDA {built}, and look at CUDA_VISIBLE_DEVICES and permissions"
            yield Finding("FAIL", "GPU", f"there is a driver, and torch for CUDA {built} sees no GPU", remedy)
        return
    for number in range(torch.cuda.device_count()):
        yield _examine_gpu(number)


def _examine_gpu(number: int) -> Finding:
    import torch

    subject, found = f"GPU {number}", torch.cuda.get_device_properties(number).name
    try:
        free, total = torch.cuda.mem_get_info(number)
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if float((ones @ ones).sum()) != 64.0**3:
            return Finding("FAIL", subject, f"{found}: a product of matrices is wrong", "have the GPU looked at")
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        return Finding(
            "FAIL", subject, f"{found}: {why}", "look at the driver, the build of torch, and who uses the GPU"
        )
    found += f", {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, CUDA {torch.version.cuda}"
    if free < 0.25 * total:
        return Finding("WARN", subject, found, "another process has most of it: nvidia-smi names it")
    return Finding("PASS", subject, found)


def _examine_limits() -> Finding:
    import resource

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{cores} cores, {'any number of' if files == resource.RLIM_INFINITY else files} open files"
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        return Finding("WARN", "limits", found, f"ulimit -n {FEW_FILES}, before runs with many workers or GPUs")
    return Finding("PASS", "limits", found)
