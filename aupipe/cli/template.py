"""The text of the `aupipe.toml` that `aupipe init` writes."""

from __future__ import annotations

GEOMETRY = """[[encoder]]
kind = "geometry"

"""

DETECTOR = """# Parameters of the detector, or another one with its parameters.
# [detector]
# kind = "retinaface"             # instead of `detector` above
# model = "resnet50"
"""

DEFAULT = """# A feature is called as its kind, unless it has a `name`.
[[encoder]]
kind = "hog"

GEOMETRY[[encoder]]
kind = "mfcc"

# A pretrained backbone: any timm name.
# [[encoder]]
# kind = "timm"
# name = "swin_t"                 # the feature's name
# model = "swin_tiny_patch4_window7_224.ms_in1k"
"""


def template(
    layout: str,
    *,
    videos: str = "videos",
    frames: str = "video",
    detector: str = "mtcnn",
    task: str = "au",
    fps: float | None = None,
    recipe: str = "tcn",
    encoders: str = "",
    detector_table: str = "",
) -> str:
    """The default configuration for a data set of this layout, with comments.

    ``encoders``, ``detector_table``: the text of such tables, in place of the default ones.
    """
    dataset = [f'layout = "{layout}"']
    if layout == "affwild2":
        dataset += ['root = "."', f'frames = "{frames}"                # or "cropped_aligned": the organisers\' crops']
    elif layout in ("folder", "images"):
        dataset += [f'videos = "{videos}"']
    else:
        dataset += ['root = "."']
    if fps is not None:
        dataset += [f"fps = {fps:g}                           # images have no timestamps: state their frame rate"]
    body = "\n".join(dataset)
    geometry = "" if frames == "cropped_aligned" else GEOMETRY  # aligned crops have no landmarks
    encoders = encoders or DEFAULT.replace("GEOMETRY", geometry)
    return f"""# Configuration of aupipe. `aupipe config show` prints every value and where it comes from.

[dataset]
{body}

[store]
path = "features"
backend = "zarr"                  # or "hdf5"

[faces]
detector = "{detector}"                # "mtcnn": weights bundled; "yunet": faster, weights from AUPIPE_WEIGHTS
subject = "largest"               # or "center", "left", "right"

{detector_table or DETECTOR}
{encoders}
[train]
recipe = "{recipe}"
task = "{task}"
"""
