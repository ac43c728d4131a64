"""The table of published weights.

Addresses, scores and licences are their owners', looked up on the pages that the table names. A sum
that is published is part of the file's name (see download.py).
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

_PYTORCHVIDEO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo"
_PYSLOWFAST = "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo"
_MMACTION2 = "https://download.openmmlab.com/mmaction/v1.0/detection"
_UMT = "https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/umt/single_modality"
_TORCHVISION = "https://download.pytorch.org/models"
ALPHACTION_PAGE = "https://github.com/MVIG-SJTU/AlphAction/blob/master/MODEL_ZOO.md"

# What the owners say. None of them says more of the weights than of the code, and all of AVA's and
# Kinetics' videos have owners of their own.
APACHE = "Apache-2.0 (of the project; its page says nothing else of the weights)"
BSD = "BSD-3-Clause (of the project; terms of the data may apply)"
MIT = "MIT (of the project; its page says nothing else of the weights)"
# mmaction2, itself Apache-2.0, has ported VideoMAE's weights and trained on from them.
VIDEOMAE = "CC BY-NC 4.0, not for commercial use (VideoMAE's, also of what is trained from them)"
NO_LICENCE = "none given"


class Published(NamedTuple):
    """Weights that somebody has published.

    Attributes:
        config: the configuration that they fit, below `configs/`; "": none here, yet.
        address: of the file; "": there is none that a program could read.
        source: who names the tensors, a key of `checkpoint.sources.SOURCES`, or "torchvision".
        licence: of the weights.
        score: as published.
        file, page: what the file is called and where its owner offers it, where it has no address.
    """

    config: str
    address: str
    source: str
    licence: str
    score: str
    file: str = ""
    page: str = ""


def _table() -> dict[str, Published]:
    table: dict[str, Published] = {}
    for name, file, score in (
        ("slow_R50_4x16", "SLOW_4x16_R50_DETECTION", "19.5 mAP, AVA v2.2"),
        ("slowfast_R50_8x8", "SLOWFAST_8x8_R50_DETECTION", "24.67 mAP, AVA v2.2"),
    ):
        config = f"AVA/published/pytorchvideo_{name}"
        address = f"{_PYTORCHVIDEO}/ava/{file}.pyth"
        table[config] = Published(f"{config}.yaml", address, "pytorchvideo", APACHE, score)
    for name, file, score in (
        ("slow_R50_4x16", "C2D_8x8_R50", "19.5 mAP, AVA v2.2"),
        ("slowfast_R101_8x8", "SLOWFAST_32x2_R101_50_50", "29.1 mAP, AVA v2.2"),
        ("slowfast_R101_16x8", "SLOWFAST_64x2_R101_50_50", "29.4 mAP, AVA v2.2"),
        ("slowfast_R101_8x8_v2.1", "SLOWFAST_32x2_R101_50_50_v2.1", "28.2 mAP, AVA v2.1"),
    ):
        config = f"AVA/published/pyslowfast_{name}"
        address = f"{_PYSLOWFAST}/ava/{file}.pkl"
        table[config] = Published(f"{config}.yaml", address, "pyslowfast", APACHE, score)
        of_kinetics = 400 if name.startswith("slow_") else 600
        table[f"Kinetics/pyslowfast_{name}_pretrained"] = Published(
            *(f"{config}.yaml", f"{_PYSLOWFAST}/ava/pretrain/{file}.pkl", "pyslowfast", APACHE),
            f"to train from (Kinetics-{of_kinetics})",
        )
    for name, pretrained, training, sha, score in (
        ("slowonly_R50_4x16_v2.1", "400", "r50_8xb16-4x16x1-20e_ava21", "953ef5fe", "20.76"),
        ("slowonly_R50_4x16_v2.1", "700", "r50_8xb16-4x16x1-20e_ava21", "b3b6d44e", "22.77"),
        ("slowonly_R101_8x8_v2.1", "400", "r101_8xb16-8x8x1-20e_ava21", "43f16877", "24.82"),
        ("slowfast_R50_4x16_v2.1", "400", "r50_8xb16-4x16x1-20e_ava21", "5180ea3c", "24.27"),
        ("slowfast_R50_8x8_v2.1", "400", "r50_8xb8-8x8x1-20e_ava21", "39133ec7", "25.73"),
        ("slowfast_R50_8x8", "400", "r50_8xb6-8x8x1-cosine-10e_ava22", "d934a48f", "25.98"),
    ):
        network = name.partition("_")[0]
        folder = f"{network}_kinetics{pretrained}-pretrained-{training}-rgb"
        version = "2.1" if name.endswith("v2.1") else "2.2"
        row = f"AVA/published/mmaction2_{name}" + ("_k700" if pretrained == "700" else "")
        table[row] = Published(
            f"AVA/published/mmaction2_{name}.yaml",
            f"{_MMACTION2}/{network}/{folder}/{folder}_20220906-{sha}.pth",
            *("mmaction2", APACHE, f"{score} mAP, AVA v{version}"),
        )
    for size, sha, of_videomae, of_umt, of_k710 in (
        ("base", "3dafab75", "33.6", "33.5", "81.9"),
        ("large", "bf93c9ea", "38.7", "39.8", "86.0"),
    ):
        letter = size[0].upper()
        file = f"vit-{size}-p16_videomae-k400-pre_8xb8-16x4x1-20e-adamw_ava-kinetics-rgb"
        config = f"AVA/published/mmaction2_videomae_vit_{letter}"
        table[config] = Published(
            *(f"{config}.yaml", f"{_MMACTION2}/videomae/{file}/{file}_20230314-{sha}.pth"),
            *("mmaction2_videomae", VIDEOMAE, f"{of_videomae} mAP, AVA v2.2"),
        )
        config = f"AVA/published/umt_vit_{letter}"
        table[config] = Published(
            *(f"{config}.yaml", f"{_UMT}/{size[0]}16_ptk710_ftk710_ftava_f8_res224.pth"),
            *("umt", MIT, f"{of_umt} mAP, AVA v2.2"),
        )
        table[f"Kinetics/umt_vit_{letter}_k710"] = Published(
            *(f"{config}.yaml", f"{_UMT}/{size[0]}16_ptk710_ftk710_f8_res224.pth", "umt", MIT),
            f"to train from ({of_k710} top-1, Kinetics-710)",
        )
    for name, file, score in (
        ("slowfast_R50_4x16", "resnet50_4x16f_baseline", "26.7"),
        ("aia_parallel_R50_4x16", "resnet50_4x16f_parallel", "29.0"),
        ("aia_serial_R50_4x16", "resnet50_4x16f_serial", "29.8"),
        ("aia_dense_R50_4x16", "resnet50_4x16f_denseserial", "30.0"),
        ("slowfast_R101_8x8", "resnet101_8x8f_baseline", "29.3"),
        ("aia_dense_R101_8x8", "resnet101_8x8f_denseserial", "32.4"),
    ):
        config = f"AVA/released/{name}"
        table[config] = Published(
            *(f"{config}.yaml", "", "alphaction", NO_LICENCE, f"{score} mAP, AVA v2.2"),
            file=f"{file}.pth",
            page=ALPHACTION_PAGE,
        )
    for name, file, top1 in (
        ("slowfast_R50_4x16", "SlowFast-ResNet50-4x16", "66.34 top-1, Kinetics-700"),
        ("slowfast_R101_8x8", "SlowFast-ResNet101-8x8", "Kinetics-700"),
    ):
        table[f"Kinetics/alphaction_{name}_k700"] = Published(
            *(f"AVA/{name}.yaml", "", "alphaction", NO_LICENCE, f"to train from ({top1})"),
            file=f"{file}.pth",
            page=ALPHACTION_PAGE,
        )
    slow, slowfast = (
        f"AVA/published/{name}.yaml"
        for name in ("pytorchvideo_slow_R50_4x16", "pytorchvideo_slowfast_R50_8x8")
    )
    for owner, folder, ending in (
        ("pytorchvideo", f"{_PYTORCHVIDEO}/kinetics", "pyth"),
        ("pyslowfast", f"{_PYSLOWFAST}/kinetics400", "pkl"),
    ):
        slow_file = "SLOW" if owner == "pytorchvideo" else "SLOWONLY"
        for name, config, file, scores in (
            ("slow_R50_4x16_k400", slow, f"{slow_file}_4x16_R50", ("72.40", "72.7")),
            ("slow_R50_8x8_k400", slow, f"{slow_file}_8x8_R50", ("74.58", "74.8")),
            ("slowfast_R50_8x8_k400", slowfast, "SLOWFAST_8x8_R50", ("76.94", "77.0")),
        ):
            top1 = scores[owner == "pyslowfast"]
            table[f"Kinetics/{owner}_{name}"] = Published(
                *(config, f"{folder}/{file}.{ending}", owner, APACHE),
                f"to train from ({top1} top-1, Kinetics-400)",
            )
    for name, address, source, top1 in (  # the second has no pooling along time, as the network
        ("pytorchvideo", f"{_PYTORCHVIDEO}/kinetics/C2D_8x8_R50.pyth", "pytorchvideo_c2d", "71.46"),
        ("pyslowfast", f"{_PYSLOWFAST}/kinetics400/C2D_NOPOOL_8x8_R50.pkl", "pyslowfast", "67.2"),
    ):
        table[f"Kinetics/{name}_c2d_R50_8x8_k400"] = Published(
            *("UCF101-24/c2d_R50.yaml", address, source, APACHE),
            f"to train from ({top1} top-1, Kinetics-400)",
        )
    for name, sha, top1 in (
        ("r3d_18", "b3b3357e", "63.2"),
        ("mc3_18", "a90a0ba3", "63.96"),
        ("r2plus1d_18", "91a641e6", "67.463"),
        ("s3d", "d76dad2f", "68.368"),
        ("mvit_v1_b", "dbeb1030", "78.477"),
        ("mvit_v2_s", "ae3be167", "80.757"),
        ("swin3d_t", "7615ae03", "77.715"),
        ("swin3d_s", "da41c237", "79.521"),
    ):
        table[f"Kinetics/torchvision_{name}"] = Published(
            f"Backbones/{name}_aia.yaml",
            *(f"{_TORCHVISION}/{name}-{sha}.pth", "torchvision", BSD),
            f"{top1} top-1, Kinetics-400",
        )
    for name, file, box_ap in (
        ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a", "46.7"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7", "32.8"),
    ):
        table[f"torchvision:{name}"] = Published(
            *("", f"{_TORCHVISION}/{file}.pth", "torchvision", BSD),
            f"{box_ap} box AP, COCO (a detector)",
        )
    return table


TABLE = _table()


def names() -> list[str]:
    """The names of all published weights."""
    return list(TABLE)


def find(name: str) -> Published | None:
    """What is published under a name; as in detectron2, it may end in .yaml."""
    return TABLE.get(name.removesuffix(".yaml"))


def closest(name: str) -> str:
    """A name that somebody probably meant, as the end of a message."""
    last = {known.rpartition("/")[2]: known for known in TABLE}
    stem = name.removesuffix(".yaml")
    close = difflib.get_close_matches(stem, TABLE, n=1, cutoff=0.8)
    close = close or [last[x] for x in difflib.get_close_matches(stem, last, n=1, cutoff=0.8)]
    return f"; did you mean {close[0]}?" if close else ""
