"""Every configuration key that this project adds to detectron2's.

Keys that detectron2 already has keep their meaning (`INPUT.MIN_SIZE_TRAIN`, `SOLVER.*`,
`MODEL.PIXEL_MEAN`, `TEST.EVAL_PERIOD` ...).

Keys are read, and checked (:func:`check_keys`), where something is built: in a class's
`from_config` or `__init__`, in a `build_*` function, by the commands in `apps`, and by a few
functions that prepare a run; tests/test_config_keys.py lists them. What runs step by step never
reads one. Of detectron2's keys, those of a run are checked before it starts (`engine/checks.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

# How often detectors look at a video: at one look a second, identities are lost in what people do
# between two keyframes.
LOOKS_PER_SECOND = 5


def add_alphaaction_config(cfg: CN) -> None:
    """Add the keys of AIA and IGMN to `cfg`, with the defaults that
    `configs/Base-ActionRCNN.yaml` starts from."""
    _add_input_clips(cfg)
    _add_input_boxes(cfg)
    _add_data_sets(cfg)
    _add_detector(cfg)
    _add_slowfast(cfg)
    _add_video_backbone(cfg)
    _add_joined_backbone(cfg)
    _add_action_head(cfg)
    _add_interaction(cfg)
    _add_hgnn(cfg)
    _add_dam(cfg)
    _add_memory(cfg)
    _add_identities(cfg)
    _add_solver_and_test(cfg)


def _add_input_clips(cfg: CN) -> None:
    """Which frames a clip has, and what is done to their pictures."""
    # Raw frames around the keyframe that the network sees, and their distance in frames.
    cfg.INPUT.NUM_FRAMES = 64
    cfg.INPUT.SAMPLING_RATE = 1
    # Frame rate at which the clip is sampled, whatever the video's own rate: frame k of the clip
    # is the frame shown at keyframe + (k - NUM_FRAMES // 2) * SAMPLING_RATE / CLIP_FPS seconds.
    cfg.INPUT.CLIP_FPS = 25.0
    # Shifts of hue (OpenCV half degrees), saturation and value (grey levels), drawn once per
    # training clip from [-x, x]. The released AIA recipe uses (10, 26, 26); 0 turns it off.
    cfg.INPUT.COLOR_JITTER = (0, 0, 0)
    # Videos that a loading worker keeps open. Two serve clips in order; for training on many small
    # videos, as many as there are saves opening them again. Testing keeps two at most.
    cfg.INPUT.MAX_OPEN_VIDEOS = 2


def _add_input_boxes(cfg: CN) -> None:
    """Which boxes of a clip are used, and how training varies them."""
    # Training uses at most this many annotated persons of a clip (random subset). Not to be mixed
    # up with MODEL.MEMORY.MAX_PERSONS, of a slot, and MODEL.INTERACTION.MAX_PERSONS, padding.
    cfg.INPUT.MAX_PERSONS_TRAIN = 10
    # At most this many detected persons of a training clip who overlap no annotated one by
    # NEGATIVE_MAX_IOU are examples of doing nothing of the list (random subset): for data sets that
    # annotate only who acts (UCF101-24), where testing meets the others. They score at least
    # PERSON_SCORE_THRESH_TEST.
    cfg.INPUT.NEGATIVE_PERSONS_TRAIN = 0
    cfg.INPUT.NEGATIVE_MAX_IOU = 0.3
    # Training boxes: each edge moves outwards / inwards by up to this share of the width or height:
    # (x outward, x inward, y outward, y inward). Zeros turn the jitter off.
    cfg.INPUT.BOX_JITTER = (0.2, 0.1, 0.1, 0.05)
    # They are then enlarged by a factor drawn from 1 to this (IGMN: 1.5).
    cfg.INPUT.MAX_BOX_SCALE_TRAIN = 1.0
    # Detected persons below this score are not used in testing.
    cfg.INPUT.PERSON_SCORE_THRESH_TEST = 0.8
    # Objects below this score are not used; of the rest, the best MAX_OBJECTS are. (Where a model
    # pads its objects, MODEL.INTERACTION.MAX_OBJECTS should be the same number.)
    cfg.INPUT.OBJECT_SCORE_THRESH = 0.5
    cfg.INPUT.MAX_OBJECTS = 5
    # The same of hands, which SegmentHeads puts beside the segment as keys of P-blocks; 0: none.
    cfg.INPUT.HAND_SCORE_THRESH = 0.5
    cfg.INPUT.MAX_HANDS = 0


def _add_data_sets(cfg: CN) -> None:
    """Own data, and features that are computed once."""
    # Folders with own data (docs/own_data.md): FOLDER is registered as NAME_train, NAME_val, ...
    # with NAME the folder's name, one data set for every annotations/<split>.csv in it.
    cfg.DATASETS.FOLDERS = ()

    # Data sets with an annotation for every frame (UCF101-24): training looks at every n-th frame,
    # counted from a video's first. With 5 it looks at those that are remembered, see
    # MODEL.MEMORY.SLOTS_PER_SECOND; neighbouring frames hardly differ.
    cfg.DATASETS.UCF101_24 = CN()
    cfg.DATASETS.UCF101_24.TRAIN_FRAME_STRIDE = 5

    # With a frozen backbone (FROZEN in its section): compute the features of every training
    # keyframe once, in this many augmented variants, and train on these. Steps then cost next to
    # nothing, and all features stay in memory (how much is told). 0: videos are read in every step.
    cfg.DATALOADER.STORED_VARIANTS = 0
    # A folder for them, which all runs of the same backbone, clips and augmentation share, whatever
    # follows the backbone: they are computed once for all (how much it will be is told), in
    # variants that do not depend on SEED; a run that is killed on the way goes on there, and
    # another film or label costs no more than itself. Empty: in memory, by every run.
    cfg.DATALOADER.STORED_FOLDER = ""


def _add_detector(cfg: CN) -> None:
    """Where boxes come from when an input brings none."""
    # A detector that finds persons and objects where an input brings no boxes: "auto" (the best one
    # that is installed and that the device can run), "torchvision:NAME", "transformers:NAME", or a
    # configuration of detectron2 (file, or name in the model zoo); and its weights (file or
    # address; not needed for what has a name). Empty: the whole picture is one person.
    cfg.MODEL.PERSON_DETECTOR = CN()
    cfg.MODEL.PERSON_DETECTOR.CONFIG = ""
    cfg.MODEL.PERSON_DETECTOR.WEIGHTS = ""
    # How often a second it looks at a video. Once is at the keyframes; the persons of more often
    # are only linked, so that identities survive what happens between two keyframes.
    cfg.MODEL.PERSON_DETECTOR.LOOKS_PER_SECOND = LOOKS_PER_SECOND


def _add_slowfast(cfg: CN) -> None:
    """The backbones SlowFast and Slow, which is its slow pathway alone and takes the same keys, but
    ALPHA, BETA_INV and LATERAL_KERNEL: these have to stay as they are here."""
    cfg.MODEL.SLOWFAST = CN()
    cfg.MODEL.SLOWFAST.DEPTH = 50  # 18 (one bottleneck a stage), 50, 101, 152
    cfg.MODEL.SLOWFAST.NUM_STAGES = 4  # 4: up to res5; fewer for small networks
    # Of the raw frames the slow pathway sees every TAU-th, the fast pathway every (TAU //
    # ALPHA)-th.
    cfg.MODEL.SLOWFAST.TAU = 16
    cfg.MODEL.SLOWFAST.ALPHA = 8
    # Training draws the first slow frame at random from [0, TAU) (released AIA recipe).
    cfg.MODEL.SLOWFAST.SLOW_JITTER = False
    # The slow frames are spread evenly from the first to the last fast frame (of a Slow: raw frame)
    # instead of lying TAU apart: how the networks of PySlowFast and pytorchvideo were trained.
    cfg.MODEL.SLOWFAST.SLOW_SPREAD = False
    # The first slow frame, below TAU, where it is neither drawn nor spread; mmaction2's is 0. -1:
    # the middle of its step, (TAU - 1) // 2.
    cfg.MODEL.SLOWFAST.SLOW_START = -1
    # Channels of the slow stem; the fast pathway has 1 / BETA_INV of the slow channels everywhere.
    cfg.MODEL.SLOWFAST.STEM_CHANNELS = 64
    cfg.MODEL.SLOWFAST.BETA_INV = 8
    # Sizes (time, height, width) of the slow and the fast stem convolution (a Slow has the first).
    cfg.MODEL.SLOWFAST.STEM_KERNELS = ((1, 7, 7), (5, 7, 7))
    # Spatial stride of the stem convolution and of its max pooling (1: no pooling).
    cfg.MODEL.SLOWFAST.STEM_STRIDES = (2, 2)
    # Spatial strides and dilations of res2..res5. res5: stride 1, dilation 2 keeps the stride at
    # 16.
    cfg.MODEL.SLOWFAST.SPATIAL_STRIDES = (1, 2, 2, 1)
    cfg.MODEL.SLOWFAST.DILATIONS = (1, 1, 1, 2)
    # Pixels between cells of the result, where that is to be less than the strides multiply to: the
    # last stages then get dilation in place of strides, and keep their weights. 0: as strides say.
    cfg.MODEL.SLOWFAST.OUTPUT_STRIDE = 0
    # How many of the first blocks of res2..res5 look along time, where the stage does; (): all. The
    # R101 networks of PySlowFast for AVA have (3, 4, 6, 3).
    cfg.MODEL.SLOWFAST.TEMPORAL_BLOCKS = ()
    # Blocks of the slow res4 that a non-local block follows, counted from 0; those networks have
    # (6, 13, 20).
    cfg.MODEL.SLOWFAST.NON_LOCAL_BLOCKS = ()
    # "BN" trains batch normalisation; "FrozenBN" keeps statistics, scale and shift fixed.
    cfg.MODEL.SLOWFAST.NORM = "FrozenBN"
    # Train only what follows the backbone.
    cfg.MODEL.SLOWFAST.FROZEN = False
    # Training keeps the stages' inputs only and computes the rest again when going back: less
    # memory for about a third more time.
    cfg.MODEL.SLOWFAST.ACTIVATION_CHECKPOINT = False
    # Lateral connections and stem pooling: "aia" is the released AIA network (kernel 5, bias, no
    # norm, no ReLU, unpadded pooling), "pytorchvideo" is that of pytorchvideo and PySlowFast,
    # "mmaction2" has a convolution alone, without bias. Of a Slow it is the pooling alone.
    cfg.MODEL.SLOWFAST.LATERAL = "aia"
    cfg.MODEL.SLOWFAST.LATERAL_KERNEL = 5  # frames of the fast pathway a lateral connection sees
    # Keep pictures and convolutions in channels-last order; with bfloat16 much faster on the CPU.
    cfg.MODEL.CHANNELS_LAST = False
    # Parts that torch.compile compiles when they are first called, in a minute or more: "backbone",
    # "interaction". On the CPU large networks gain a tenth to a fifth, small ones nothing.
    cfg.MODEL.COMPILE = ()
    # Pad pictures with zeros to a multiple of the backbone's strides. PySlowFast and pytorchvideo
    # do not: where a side is no multiple of 16 their scores differ by up to 0.015.
    # Clips of different sizes in one batch are padded to the largest in any case, so for their
    # numbers TEST.IMS_PER_BATCH stays 1.
    cfg.MODEL.PAD_TO_STRIDE = True


def _add_video_backbone(cfg: CN) -> None:
    """Networks of other libraries (`model_zoo/networks.py`), and video transformers."""
    cfg.MODEL.VIDEO_BACKBONE = CN()
    # Which network; MODEL.BACKBONE.NAME says of which library.
    cfg.MODEL.VIDEO_BACKBONE.NAME = ""
    # Its published weights, without heads, to begin from where MODEL.WEIGHTS names none: a file, an
    # address, a name of the model zoo; of transformers also a folder or a name of its hub.
    cfg.MODEL.VIDEO_BACKBONE.WEIGHTS = ""
    # Which of its layers gives the map. None: the network's own default.
    cfg.MODEL.VIDEO_BACKBONE.LAYER = None
    # Train only what follows the backbone.
    cfg.MODEL.VIDEO_BACKBONE.FROZEN = False
    # "BN" trains batch normalisation; "FrozenBN" keeps statistics, scale and shift fixed.
    cfg.MODEL.VIDEO_BACKBONE.NORM = "FrozenBN"
    # The video transformer of VideoMAE and UMT. ViT-B: 768 and 12; ViT-L: 1024 and 24.
    cfg.MODEL.VIDEO_BACKBONE.VIT = CN()
    cfg.MODEL.VIDEO_BACKBONE.VIT.CHANNELS = 768  # a multiple of 64, the channels of a head
    cfg.MODEL.VIDEO_BACKBONE.VIT.DEPTH = 12
    cfg.MODEL.VIDEO_BACKBONE.VIT.TUBELET = 2  # frames that become one map; UMT: 1
    # How often training leaves out what the last block adds to a clip; the others less, the first
    # never (stochastic depth). UMT and VideoMAE fine-tune with 0.2, UMT's large one with 0.4.
    cfg.MODEL.VIDEO_BACKBONE.VIT.DROP_PATH = 0.0


def _add_joined_backbone(cfg: CN) -> None:
    """The backbone that is several: build_joined_backbone."""
    cfg.MODEL.JOINED_BACKBONE = CN()
    # A configuration and its weights ("": those that it names itself) for every network; of the
    # configurations backbone, colours and clips count. Their frames are taken from the clips of
    # INPUT here, which have to hold them.
    cfg.MODEL.JOINED_BACKBONE.NETWORKS = ()
    # Train only what follows; else what each configuration says.
    cfg.MODEL.JOINED_BACKBONE.FROZEN = False


def _add_action_head(cfg: CN) -> None:
    """From maps and boxes to scores of actions."""
    cfg.MODEL.ROI_ACTION_HEAD = CN()
    cfg.MODEL.ROI_ACTION_HEAD.POOLER_RESOLUTION = 7  # cells of a RoI's side, K
    # Samples in a cell, along each side; 0: as many as the cell has pixels of the map.
    cfg.MODEL.ROI_ACTION_HEAD.POOLER_SAMPLING_RATIO = 0
    # "ROIAlign" is half a cell off, as the released weights were trained; "ROIAlignV2" is not.
    cfg.MODEL.ROI_ACTION_HEAD.POOLER_TYPE = "ROIAlign"
    # Test boxes are enlarged by these shares of width and height (half on each side) before
    # pooling; results keep the original boxes.
    cfg.MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST = (0.1, 0.05)
    # Pool boxes up to their last pixel instead of behind it: how the released AIA weights were
    # trained, whose boxes include it.
    cfg.MODEL.ROI_ACTION_HEAD.POOL_TO_LAST_PIXEL = False
    # Layers between the pooled feature and the classifier, and their width; NUM_FC 0, as in the
    # detectors of pytorchvideo and PySlowFast, has none.
    cfg.MODEL.ROI_ACTION_HEAD.FC_DIM = 1024
    cfg.MODEL.ROI_ACTION_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_ACTION_HEAD.DROPOUT = 0.0  # before the classifier
    # Classes in order, as groups: names, sizes, loss weights. Sizes add up to the number of
    # classes. The classes of a softmax group exclude each other; all other groups are sigmoid.
    # None: what the label file of the data says, or the weights; without either, AVA's 80 classes.
    # Weights are then 1; where only the other keys are set, a group called "pose" is softmax.
    cfg.MODEL.ROI_ACTION_HEAD.GROUP_NAMES = None
    cfg.MODEL.ROI_ACTION_HEAD.GROUP_SIZES = None
    cfg.MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS = None
    cfg.MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS = None
    # "bce": cross entropy over softmax groups, binary cross entropy elsewhere. "focal": the focal
    # form of both. Every group's loss is the sum over its classes, averaged over persons.
    cfg.MODEL.ROI_ACTION_HEAD.LOSS = "bce"
    cfg.MODEL.ROI_ACTION_HEAD.FOCAL_GAMMA = 2.0  # how much less the focal loss says of easy cases
    cfg.MODEL.ROI_ACTION_HEAD.FOCAL_ALPHA = -1.0  # < 0: no class balancing
    # Actions below this score are not listed in results (0: all, as the AVA evaluation wants).
    cfg.MODEL.ROI_ACTION_HEAD.SCORE_THRESH_TEST = 0.0


def _add_interaction(cfg: CN) -> None:
    """What relates persons to each other, to objects and to the memory (AIA)."""
    cfg.MODEL.INTERACTION = CN()
    # "" for none, or a name in INTERACTION_REGISTRY: SerialInteraction, DenseSerialInteraction,
    # ParallelInteraction (AIA), HGNN, IGMN, NonLocalInteraction. "A + B" adds what both find.
    cfg.MODEL.INTERACTION.NAME = ""
    cfg.MODEL.INTERACTION.DIM = 1024  # inner width d
    cfg.MODEL.INTERACTION.DIM_OUT = 0  # output width; 0: the width of the person features
    cfg.MODEL.INTERACTION.DROPOUT = 0.2  # of the projections and of every block's result
    # How the result meets the person feature: "add" (needs equal widths), "concat" or "replace".
    cfg.MODEL.INTERACTION.FUSION = "add"
    # Block types in order: persons, objects, memory.
    cfg.MODEL.INTERACTION.BLOCKS = ("P", "O", "M", "P", "O", "M")
    cfg.MODEL.INTERACTION.LAYER_NORM = True  # of what attention has gathered, without parameters
    # M-blocks know how long ago a slot was: one learned vector a slot for keys, one for values.
    # (IGMN's graph has a key of its own, MODEL.HGNN.TEMPORAL_POSITION, off as in its paper.)
    cfg.MODEL.INTERACTION.TEMPORAL_POSITION = True
    # Released AIA weights were trained with attention that also falls on empty places; persons and
    # objects are then padded to MAX_PERSONS and MAX_OBJECTS, which nothing else reads. False masks
    # empty places, and sets may be of any size.
    cfg.MODEL.INTERACTION.ATTEND_PADDING = False
    cfg.MODEL.INTERACTION.MAX_PERSONS = 25
    cfg.MODEL.INTERACTION.MAX_OBJECTS = 5
    # Standard deviation of the initial weights of all projections (W_o of a block starts at zero).
    cfg.MODEL.INTERACTION.INIT_STD = 0.01
    # Size of the initial temporal positions, sines and cosines of the time offset. 0, the released
    # recipe, starts them at zero; networks that train from nothing need a start.
    cfg.MODEL.INTERACTION.POSITION_SCALE = 0.0


def _add_hgnn(cfg: CN) -> None:
    """IGMN: the graph along identities."""
    # HGNN and IGMN also read MODEL.INTERACTION.{DIM, DIM_OUT, DROPOUT, LAYER_NORM, INIT_STD,
    # POSITION_SCALE}. In the paper their result takes the place of the person features: FUSION
    # "replace", with DIM_OUT as wide as DIM.
    cfg.MODEL.HGNN = CN()
    cfg.MODEL.HGNN.NUM_LAYERS = 3  # layers of messages (IGMN, Table 1a: 1, 2, 3)
    # Messages along tracks: "ordered" (neighbouring seconds, before and after told apart), "gcn"
    # (graph convolution over the whole track) or "" (none). HGNN-s is "" without DOWN_SAMPLE.
    cfg.MODEL.HGNN.AGGREGATOR = "ordered"
    # Layer k links persons 2^k slots apart; what is at odd distance of the actor is removed.
    cfg.MODEL.HGNN.DOWN_SAMPLE = True
    # Persons of the memory whose track does not reach an actor without a gap: removed by the first
    # down-sampling (False), or kept at even time offsets (True).
    cfg.MODEL.HGNN.KEEP_UNREACHABLE = False
    # Persons of the memory receive messages, too. False is the paper's "frozen".
    cfg.MODEL.HGNN.UPDATE_MEMORY = True
    # Attention leaves out the own identity.
    cfg.MODEL.HGNN.EXCLUDE_SELF = False
    # Learned temporal positions for the memory, as in AIA; the paper has none.
    cfg.MODEL.HGNN.TEMPORAL_POSITION = False


def _add_dam(cfg: CN) -> None:
    """IGMN: the dual attention module."""
    cfg.MODEL.DAM = CN()
    # The attentions in use, at least one; with one alone its map weights the result.
    cfg.MODEL.DAM.SEMANTIC = True
    cfg.MODEL.DAM.IDENTITY = True
    cfg.MODEL.DAM.DIM = 256  # width inside the attention networks
    cfg.MODEL.DAM.DIM_MEMORY = 256  # width of the graph's features in the attention's input
    # Auxiliary losses in use, their common weight (lambda_aux) and the margin of sem_prior (gamma).
    cfg.MODEL.DAM.LOSSES = ("sem_cls", "idt_cls", "sem_prior", "idt_prior")
    cfg.MODEL.DAM.LOSS_WEIGHT = 0.5
    cfg.MODEL.DAM.MARGIN = 0.1  # the paper also says "1" once
    # idt_prior looks at the product of both maps instead of the identity map alone.
    cfg.MODEL.DAM.PRIOR_ON_PRODUCT = False
    # Pool by the mean weighted with the maps. False is the paper's Eq. 3, which divides by the
    # number of cells: the fewer cells a map picks, the fainter what it has picked. Networks that
    # train from nothing learn much sooner where to look with True (measured: docs/puppets.md).
    cfg.MODEL.DAM.NORMALIZE_WEIGHTS = False
    # Factor of the four geometry channels. 1 is the paper's; networks that train from nothing learn
    # from many times fewer overlapping persons with 10 to 30, as loud as the features.
    cfg.MODEL.DAM.GEOMETRY_SCALE = 1.0


def _add_memory(cfg: CN) -> None:
    """The memory pool and its windows."""
    cfg.MODEL.MEMORY = CN()
    # The clock: a keyframe is remembered in slot round(timestamp * SLOTS_PER_SECOND). Keyframes of
    # a training set need a slot each: 1.0 for AVA's, one a second. Where every frame is a keyframe
    # (UCF101-24), that at the slot's own moment is remembered, and those around it only read.
    cfg.MODEL.MEMORY.SLOTS_PER_SECOND = 1.0
    # Keyframes whose slot is the same stand in it side by side, told apart by their persons' ids:
    # for segments, which may overlap. False refuses them.
    cfg.MODEL.MEMORY.SHARED_SLOTS = False
    # Half window before and after the clip, in slots. (0, 0): no memory beyond the clip itself.
    cfg.MODEL.MEMORY.WINDOW = (30, 30)
    # Every STRIDE-th slot of the window is read.
    cfg.MODEL.MEMORY.STRIDE = 1
    # Persons that are read from a slot (M). Of a more crowded one training reads a random subset,
    # testing the best.
    cfg.MODEL.MEMORY.MAX_PERSONS = 5
    # Of a crowded slot, whoever is in the clip itself is read before others. HGNN's messages go
    # along tracks, and a slot that leaves somebody out breaks one: IGMN's recipe has it (measured:
    # projects/IGMN). AIA's does not: its M-blocks know no identities.
    cfg.MODEL.MEMORY.OWN_TRACKS_FIRST = False
    # Scale each slot by min(err / tag, tag / err) in training (AIA, Eq. 2).
    cfg.MODEL.MEMORY.REWEIGHT = True
    # What stored features are kept in: float16, bfloat16 or float32. AVA in float16 is 2.5 GB.
    cfg.MODEL.MEMORY.DTYPE = "float16"
    # Weights of a network without interaction, otherwise of this configuration, that fills the
    # memory once and for all (the long-term feature bank, AIA, Table 1e: "w/o AMU"). Empty: the
    # memory is updated asynchronously by the network that is being trained.
    cfg.MODEL.MEMORY.FROZEN_WEIGHTS = ""
    # A configuration whose network fills the memory in its place, of any backbone: it takes its
    # frames from the same clips, and the width of the memory is its own. Without FROZEN_WEIGHTS it
    # has the weights that it names itself.
    cfg.MODEL.MEMORY.FROZEN_CONFIG = ""
    # The memory is what a detector has said of the objects around (AIA, Sec. 6: nouns), in files
    # that never change: the width of these features, and the files; (): those of the data sets.
    # Width 0: the memory is of the model's own features.
    cfg.MODEL.MEMORY.DETECTOR_CHANNELS = 0
    cfg.MODEL.MEMORY.DETECTOR_FILES = ()
    # Live use: classify with DELAY slots of future (-1: the whole half window).
    cfg.MODEL.MEMORY.DELAY = -1


def _add_identities(cfg: CN) -> None:
    """Who is who from keyframe to keyframe, where the boxes do not say."""
    # Who is who from keyframe to keyframe, where the boxes do not say. TRACKER_NAME is a tracker in
    # detectron2's TRACKER_HEADS_REGISTRY; "" leaves ids as they are given.
    cfg.TRACKER_HEADS = CN()
    cfg.TRACKER_HEADS.TRACKER_NAME = "PersonTracker"
    # Ids that boxes already carry are kept. False: everybody is identified by the tracker.
    cfg.TRACKER_HEADS.KEEP_GIVEN_IDS = True
    # Least IoU of a person's enlarged box with that of a second ago; after g seconds this number to
    # the power of 1 / g. 0.5 suits films, with their cuts; less where nothing is ever cut and
    # people move far in a second.
    cfg.TRACKER_HEADS.TRACK_IOU_THRESHOLD = 0.5
    # Boxes grow by this share of their larger side, on every side, before they are compared.
    cfg.TRACKER_HEADS.BOX_MARGIN = 0.5
    # Whoever is not seen for more seconds than this is somebody new afterwards.
    cfg.TRACKER_HEADS.MAX_GAP = 2.0
    # People may go on as they moved, or stay. False: they are expected to stay.
    cfg.TRACKER_HEADS.MOTION = True
    # Weight of the cosine of RoI features beside 1 for the IoU, and the least cosine of a link (-1:
    # any). 0 and -1 use the boxes alone.
    cfg.TRACKER_HEADS.APPEARANCE_WEIGHT = 0.0
    cfg.TRACKER_HEADS.MIN_COSINE = -1.0
    # Set for every video: size of the picture, and the first id that no box of the video carries.
    cfg.TRACKER_HEADS.VIDEO_HEIGHT = 0
    cfg.TRACKER_HEADS.VIDEO_WIDTH = 0
    cfg.TRACKER_HEADS.FIRST_ID = 1
    # Read by detectron2's own trackers only, which count keyframes, not seconds.
    cfg.TRACKER_HEADS.MAX_NUM_INSTANCES = 200
    cfg.TRACKER_HEADS.MAX_LOST_FRAME_COUNT = 1
    cfg.TRACKER_HEADS.MIN_BOX_REL_DIM = 0.02
    cfg.TRACKER_HEADS.MIN_INSTANCE_PERIOD = 0


def _add_solver_and_test(cfg: CN) -> None:
    """Optimisation, precision, evaluation."""
    cfg.SOLVER.OPTIMIZER = "SGD"  # or "AdamW"
    # Learning-rate factor of the interaction module; multiplies with BIAS_LR_FACTOR.
    cfg.SOLVER.INTERACTION_LR_FACTOR = 1.0
    # How much slower a video transformer's block learns than what follows it (UMT: 0.75, large
    # 0.85; VideoMAE: 0.75, large 0.8). 1: all alike.
    cfg.SOLVER.LAYER_DECAY = 1.0
    # The batch that BASE_LR and the schedule are meant for. With another IMS_PER_BATCH, k times as
    # large, the rates are multiplied and all periods and lengths divided by k (linear scaling). 0:
    # take both as they are.
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH = 0
    # A step's clips go through the network in this many parts, one after the other; the gradient is
    # that of the whole batch.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # SOLVER.AMP.ENABLED trains in mixed precision: "bfloat16", or "float16" with a loss scaler.
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    # Testing computes the backbone in this precision: "float32" or "bfloat16".
    cfg.TEST.DTYPE = "float32"
    # Metric whose best value so far keeps its weights as model_best.pth, such as "ava/mAP@0.5".
    # Empty: none are kept.
    cfg.TEST.BEST_METRIC = ""
    # Rules of the AVA evaluator: official2018, official2019, official2020, slowfast or
    # mmaction2.
    cfg.TEST.AVA_PROTOCOL = "official2018"
    # What that key was called before; where it is set, it counts.
    cfg.TEST.AVA_DIALECT = ""
    # Further networks whose scores are averaged with the model's own, in the same pass: pairs of a
    # configuration file and weights. (TEST.AUG.ENABLED is detectron2's: every clip is seen with the
    # short sides MIN_SIZES, with FLIP also mirrored, and scores are averaged.)
    cfg.TEST.ENSEMBLE = ()
    # Scores of actions are multiplied by that of the detected person (UCF101-24: yes, AVA: no).
    cfg.TEST.MULTIPLY_PERSON_SCORE = False
    # Rules of the UCF101-24 evaluator: gurkirt, act or yowo.
    cfg.TEST.UCF101_24_PROTOCOL = "gurkirt"
    # Clips that testing takes through the network together. For a GPU: results are the same (on a
    # CPU to the bit), only faster.
    cfg.TEST.IMS_PER_BATCH = 1


# Keys and sections of detectron2 that would mean something here but that nothing reads, by the part
# of the model that its user would expect to read them, with what there is instead.
_CLASSES = "MODEL.ROI_ACTION_HEAD.GROUP_SIZES says how many classes there are"
_PROPOSALS = "found persons are the data set's boxes/ files, or of MODEL.PERSON_DETECTOR"
_UNREAD = {
    "model": {
        "MODEL.LOAD_PROPOSALS": _PROPOSALS,
        "MODEL.PROPOSAL_GENERATOR": _PROPOSALS,
        "DATASETS.PROPOSAL_FILES_TRAIN": "training uses the annotated persons",
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": "training uses the annotated persons",
        "DATASETS.PROPOSAL_FILES_TEST": _PROPOSALS,
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": "INPUT.PERSON_SCORE_THRESH_TEST chooses persons",
        "MODEL.MASK_ON": "there are no masks",
        "INPUT.MASK_FORMAT": "there are no masks",
        "MODEL.KEYPOINT_ON": "there are no keypoints",
        "TEST.KEYPOINT_OKS_SIGMAS": "there are no keypoints",
        "TEST.DETECTIONS_PER_IMAGE": "MODEL.ROI_ACTION_HEAD.SCORE_THRESH_TEST chooses actions",
        "DATALOADER.REPEAT_SQRT": "repeat factors are square roots",
        "VIS_PERIOD": "tools/visualize.py draws",
    },
    "heads": {
        "MODEL.ROI_HEADS.NUM_CLASSES": _CLASSES,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "MODEL.ROI_ACTION_HEAD.SCORE_THRESH_TEST is the key",
        "MODEL.ROI_HEADS.IN_FEATURES": "all maps of the backbone are used",
        "MODEL.ROI_HEADS": "boxes are given, they are neither sampled nor matched nor suppressed",
        "MODEL.ROI_BOX_HEAD": "MODEL.ROI_ACTION_HEAD has the keys of pooling and layers",
    },
    "backbone": {
        "MODEL.BACKBONE.FREEZE_AT": "FROZEN of MODEL.SLOWFAST or VIDEO_BACKBONE freezes it all",
        "MODEL.RESNETS": "MODEL.SLOWFAST and VIDEO_BACKBONE have the keys of backbones",
    },
    # of the one where the other is built; the rest of MODEL.SLOWFAST may be of a base
    "SlowFast": {
        "MODEL.VIDEO_BACKBONE.NAME": "a network of this name needs MODEL.BACKBONE.NAME null, see "
        "configs/Base-MapBackbone.yaml",
        "MODEL.VIDEO_BACKBONE.WEIGHTS": "MODEL.WEIGHTS is the key",
        "MODEL.VIDEO_BACKBONE.FROZEN": "MODEL.SLOWFAST.FROZEN is the key",
        "MODEL.VIDEO_BACKBONE.NORM": "MODEL.SLOWFAST.NORM is the key",
    },
    "another network": {
        "MODEL.SLOWFAST.FROZEN": "MODEL.VIDEO_BACKBONE.FROZEN is the key",
        "MODEL.SLOWFAST.NORM": "MODEL.VIDEO_BACKBONE.NORM is the key",
        "MODEL.SLOWFAST.ACTIVATION_CHECKPOINT": "only SlowFast and Slow can",
    },
}


def refuse_unread(cfg: CN, *parts: str) -> None:
    """Refuse keys that somebody has set but that nothing reads in what is built.

    Args:
        parts: of `_UNREAD`, which ask when they are built: strangers that take their place read
            what they like.

    Raises:
        ValueError: a key is not at its default; the line says what there is instead.
    """
    known = get_cfg()
    add_alphaaction_config(known)
    defaults = dict(_leaves(known))
    # What says what is so anyway.
    allowed = {
        "MODEL.ROI_HEADS.NUM_CLASSES": class_groups(cfg).num_classes,
        "MODEL.ROI_HEADS.NAME": cfg.MODEL.ROI_HEADS.NAME,
        "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
    }
    for key, value in _leaves(cfg):
        if key not in defaults or value in (defaults[key], allowed.get(key, defaults[key])):
            continue
        for name, instead in ((x, y) for part in parts for x, y in _UNREAD[part].items()):
            if key == name or key.startswith(f"{name}."):
                raise ValueError(
                    f"{key} {value!r}: nothing that is built here reads this key: {instead}; leave "
                    f"it at {defaults[key]!r}"
                )


def _leaves(cfg: CN, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in cfg.items():
        if isinstance(value, CN):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class Rule(NamedTuple):
    """What a key may hold: in words, and as a test."""

    expected: str
    holds: Callable[[Any], bool]


def whole(least: int = 0, most: int = 10**9) -> Rule:
    """A whole number from `least` to `most`."""
    return Rule(
        f"a whole number from {least} to {most}",
        lambda x: type(x) is int and least <= x <= most,
    )


def number(least: float = 0, most: float = 1e30, above: bool = False) -> Rule:
    """A finite number from `least`, or `above` it, to `most`."""
    end = f" to {most:g}" if most < 1e30 else ""
    return Rule(
        f"a number {'above' if above else 'from'} {least:g}{end}",
        lambda x: (
            type(x) in (int, float)
            and (least < x <= most if above else least <= x <= most)  # so NaN is none
        ),
    )


def one_of(names: Iterable[str]) -> Rule:
    """One of some names."""
    known = sorted(names)
    return Rule(
        f"one of {', '.join(map(repr, known))}", lambda x: isinstance(x, str) and x in known
    )


def several(rule: Rule, lengths: Sequence[int] = range(1, 1001)) -> Rule:
    """A list of values that keep a rule each, as long as one of `lengths`."""
    few = " or ".join(map(str, lengths)) if len(lengths) < 3 else f"{min(lengths)} or more"
    return Rule(
        f"{few} times {rule.expected}",
        lambda x: isinstance(x, tuple | list) and len(x) in lengths and all(map(rule.holds, x)),
    )


LOSS_WEIGHT = number(0, 1e6)  # what is larger overflows in the gradients
TEXT = Rule("a text", lambda x: isinstance(x, str) and bool(x))
WIDTH = whole(1, 2**14)  # channels of a layer: two of 2^14 already have 2^28 weights between them


class Groups(NamedTuple):
    """The classes of a data set or a model, as groups in the order of their ids."""

    names: tuple[str, ...]  # of the groups
    sizes: tuple[int, ...]  # how many classes each has
    exclusive: tuple[str, ...]  # names of the groups whose classes exclude each other
    loss_weights: tuple[float, ...] = ()  # one a group; empty: 1

    @property
    def num_classes(self) -> int:
        return sum(self.sizes)


_AVA_GROUPS = Groups(("pose", "object", "person"), (14, 49, 17), ("pose",))
_HEAD = "MODEL.ROI_ACTION_HEAD"


def class_groups(cfg: CN) -> Groups:
    """Read the groups of classes from `cfg.MODEL.ROI_ACTION_HEAD`; AVA's where it has none.

    Raises:
        ValueError: a key breaks its rule, or they disagree.
    """
    node = cfg.MODEL.ROI_ACTION_HEAD
    rules = {
        "GROUP_NAMES": several(TEXT),
        "GROUP_SIZES": several(whole(1, 100_000)),
        "GROUP_LOSS_WEIGHTS": several(LOSS_WEIGHT),
        "SOFTMAX_GROUPS": several(TEXT, range(1001)),
    }
    check_keys(cfg, _HEAD, {key: x for key, x in rules.items() if node[key] is not None})
    names, sizes = node.GROUP_NAMES, node.GROUP_SIZES
    if (names is None) != (sizes is None):
        raise ValueError(f"{_HEAD}: GROUP_NAMES {names} and GROUP_SIZES {sizes}: set both or none")
    if names is None:
        names, sizes = _AVA_GROUPS.names, _AVA_GROUPS.sizes
    weights, exclusive = node.GROUP_LOSS_WEIGHTS, node.SOFTMAX_GROUPS
    weights = (1.0,) * len(names) if weights is None else weights
    exclusive = [x for x in names if x == "pose"] if exclusive is None else exclusive
    if not len(names) == len(sizes) == len(weights):
        raise ValueError(
            f"{_HEAD}: GROUP_NAMES {tuple(names)}, GROUP_SIZES {tuple(sizes)} and "
            f"GROUP_LOSS_WEIGHTS {tuple(weights)} need the same length"
        )
    if len(set(names)) < len(names):  # their losses would be one
        raise ValueError(f"{_HEAD}.GROUP_NAMES {tuple(names)}: expected different names")
    unknown = sorted(set(exclusive) - set(names))
    if unknown:
        raise ValueError(f"{_HEAD}.SOFTMAX_GROUPS {unknown} are not in GROUP_NAMES {tuple(names)}")
    return Groups(tuple(names), tuple(sizes), tuple(exclusive), tuple(weights))


def says_classes(cfg: CN) -> bool:
    """Whether the configuration itself says which classes there are."""
    return cfg.MODEL.ROI_ACTION_HEAD.GROUP_SIZES is not None


def set_classes(cfg: CN, groups: Groups) -> None:
    """Write groups into a configuration that says nothing of classes; what it says of softmax and
    loss weights stays."""
    node, was_frozen = cfg.MODEL.ROI_ACTION_HEAD, cfg.is_frozen()
    cfg.defrost()
    node.GROUP_NAMES, node.GROUP_SIZES = groups.names, groups.sizes
    if node.SOFTMAX_GROUPS is None:
        node.SOFTMAX_GROUPS = groups.exclusive
    if was_frozen:
        cfg.freeze()


def check_keys(cfg: CN, section: str, rules: dict[str, Rule]) -> None:
    """Raise ValueError, in one line, for the first key of a section that breaks its rule.

    Whoever reads keys calls this first: a value that is none would go wrong later and elsewhere.
    """
    node: Any = cfg
    for name in filter(None, section.split(".")):
        node = node[name]
    for name, rule in rules.items():
        if not rule.holds(node[name]):
            key = f"{section}.{name}".lstrip(".")
            raise ValueError(f"{key} {short(node[name])}: expected {rule.expected}")


@contextlib.contextmanager
def files_of(key: str) -> Iterator[None]:
    """Name the key in errors about the files that it names."""
    try:
        yield
    except (OSError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{key}: {error}") from error


def short(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
