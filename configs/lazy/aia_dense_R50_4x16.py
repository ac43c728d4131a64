"""AIA with the dense serial structure: the model of configs/AVA/aia_dense_R50_4x16.yaml, by
explicit arguments, for detectron2's lazy configurations.

    cfg = LazyConfig.load("configs/lazy/aia_dense_R50_4x16.py")
    model = instantiate(cfg.model)
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNConvFCHead

from alphaaction_d2.modeling import ActionRCNN
from alphaaction_d2.modeling.action_output import ActionOutputLayers, ClassGroup
from alphaaction_d2.modeling.backbone import SlowFast
from alphaaction_d2.modeling.backbone.frames import FrameSampling
from alphaaction_d2.modeling.backbone.resnet import Pathway, ResNet
from alphaaction_d2.modeling.interaction import DenseSerialInteraction
from alphaaction_d2.modeling.pooler import RoIPooler
from alphaaction_d2.modeling.roi_heads import ActionROIHeads

CHANNELS = 2048 + 256  # of the slow and the fast pathway's maps
WINDOW = (30, 30)  # slots before and after

model = L(ActionRCNN)(
    backbone=L(SlowFast)(
        frames=L(FrameSampling)(num_frames=64, tau=16, alpha=8),
        resnet=L(ResNet)(
            depth=50,
            num_stages=4,
            stem_strides=(2, 2),
            spatial_strides=(1, 2, 2, 1),
            dilations=(1, 1, 1, 2),
            output_stride=0,
            norm="FrozenBN",
            lateral="aia",
            lateral_kernel=5,
        ),
        pathways={
            "slow": L(Pathway)(
                channels=64,
                stem_kernel=(1, 7, 7),
                temporal_blocks=(0, 0, None, None),  # res2 and res3 do not look along time
                joining=16,
            ),
            "fast": L(Pathway)(channels=8, stem_kernel=(5, 7, 7), temporal_blocks=(None,) * 4),
        },
    ),
    roi_heads=L(ActionROIHeads)(
        in_features=["slow", "fast"],
        pooler=L(RoIPooler)(
            resolution=7, strides=[16, 16], sampling_ratio=0, pooler_type="ROIAlign"
        ),
        interaction=L(DenseSerialInteraction)(
            dim_in=CHANNELS,
            dim_inner=1024,
            dim_out=CHANNELS,
            blocks=("P", "O", "M", "P", "O", "M"),
            num_slots=sum(WINDOW) + 1,
            dropout=0.2,
        ),
        fusion="add",
        head=L(FastRCNNConvFCHead)(
            input_shape=ShapeSpec(channels=CHANNELS, height=1, width=1),
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        predictor=L(ActionOutputLayers)(
            input_dim=1024,
            groups=[
                L(ClassGroup)(name="pose", start=0, stop=14, exclusive=True),
                L(ClassGroup)(name="object", start=14, stop=63, exclusive=False),
                L(ClassGroup)(name="person", start=63, stop=80, exclusive=False),
            ],
        ),
        num_channels=CHANNELS,
        window={"before_after": WINDOW, "max_persons": 5},
        box_extend_test=(0.1, 0.05),
    ),
    num_frames=64,
    pixel_mean=(122.7717, 115.9465, 102.9801),
    pixel_std=(57.375, 57.375, 57.375),
)
