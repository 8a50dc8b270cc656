"""The two loops `benchmarks/extract.py` measures against, each a process of its own.

``python benchmarks/extract_naive.py faces|frames --model M --out FOLDER [--batch N] [--threads N] CLIP ...``

faces: the script everybody writes. OpenCV decodes, YuNet looks at every full-size frame, the largest face is warped
to the ArcFace points, the network gets one picture at a time. frames: the loop of the best-known peer for whole
frames (video_features, its timm extractor). OpenCV decodes, PIL transforms each frame, the network gets ``batch``.
Both: float32, random weights from the seed aupipe uses, one .npy of a row per frame (NaN: no face) per clip. The last
line printed is {"frames", "faces"}.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch

SEED = 0  # aupipe.extract.weights.RANDOM_SEED
MIN_SCORE, NMS_THRESHOLD, TOP_K = 0.7, 0.3, 5000  # as aupipe's yunet, so that both find the same faces
ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def network_of(model: str) -> Any:
    torch.manual_seed(SEED)
    return timm.create_model(model, pretrained=False, num_classes=0).eval()


def read(clip: str) -> Iterator[np.ndarray]:
    """RGB frames by OpenCV."""
    capture = cv2.VideoCapture(clip)
    while True:
        found, frame = capture.read()
        if not found:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3): the least-squares similarity from (5, 2) to (5, 2) points, by SVD."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    u, s, vt = np.linalg.svd((target - target_mean).T @ (source - source_mean) / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (s * sign).sum() / (source - source_mean).var(axis=0).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def faces(clips: list[str], model: str, out: Path) -> dict[str, int]:
    network, config = network_of(model), timm.get_pretrained_cfg(model)
    assert config is not None, f"{model}: timm has no pretrained configuration of it"
    size = config.input_size[-1]
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    weights = Path(os.environ["AUPIPE_WEIGHTS"]) / "face_detection_yunet_2023mar.onnx"
    detector = cv2.FaceDetectorYN.create(str(weights), "", (320, 320), MIN_SCORE, NMS_THRESHOLD, TOP_K)
    total = {"frames": 0, "faces": 0}
    for clip in clips:
        rows = []
        for frame in read(clip):
            detector.setInputSize((frame.shape[1], frame.shape[0]))
            found = detector.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1]
            if found is None:
                rows.append(np.full(network.num_features, np.nan, np.float32))
                continue
            face = max(found, key=lambda row: row[2] * row[3])
            matrix = umeyama(face[4:14].reshape(5, 2).astype(np.float64), ARCFACE_112 * (size / 112))
            crop = cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR)
            pixels = torch.from_numpy((crop / np.float32(255) - mean) / std).permute(2, 0, 1)[None]
            with torch.no_grad():
                rows.append(network(pixels)[0].numpy())
            total["faces"] += 1
        total["frames"] += len(rows)
        np.save(out / f"{Path(clip).name}.npy", np.stack(rows))
    return total


def frames(clips: list[str], model: str, out: Path, batch: int) -> dict[str, int]:
    from PIL import Image

    network = network_of(model)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    total = {"frames": 0, "faces": 0}
    for clip in clips:
        rows, waiting = list[Any](), list[Any]()

        def forward(rows: list[Any] = rows, waiting: list[Any] = waiting) -> None:
            with torch.no_grad():
                rows.extend(network(torch.stack(waiting)).numpy())
            waiting.clear()

        for frame in read(clip):
            waiting.append(transform(Image.fromarray(frame)))
            if len(waiting) == batch:
                forward()
        if waiting:
            forward()
        total["frames"] += len(rows)
        np.save(out / f"{Path(clip).name}.npy", np.stack(rows))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=["faces", "frames"])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: what torch and OpenCV take by themselves")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    if options.loop == "faces":
        print(json.dumps(faces(options.clips, options.model, options.out)))
    else:
        print(json.dumps(frames(options.clips, options.model, options.out, options.batch)))


if __name__ == "__main__":
    main()
