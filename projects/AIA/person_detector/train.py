"""Fine-tune a detector of persons on AVA or UCF101-24, as detectron2 trains any detector.

    python projects/AIA/person_detector/train.py --num-gpus 8 \\
        --config-file projects/AIA/person_detector/faster_rcnn_X101.yaml
    alphaaction boxes --detector projects/AIA/person_detector/faster_rcnn_X101.yaml \\
        output/person_detector/model_final.pth --dataset ava_v2.2_val --output boxes/ava_val

Arguments are those of detectron2's tools/train_net.py. For UCF101-24: DATASETS.TRAIN
"('ucf101_24_train_persons',)" DATASETS.TEST "('ucf101_24_test_persons',)".
"""

from __future__ import annotations

from argparse import Namespace

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator

import alphaaction_d2  # noqa: F401  # the data sets with a name, and their keyframes


class Trainer(DefaultTrainer):
    """detectron2's, with its evaluator."""

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        # the fast one is C++, which an installation of detectron2 may be without
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR, use_fast_impl=False)


def setup(args: Namespace) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args: Namespace) -> dict | None:
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    machines = (args.num_machines, args.machine_rank, args.dist_url)
    launch(main, args.num_gpus, *machines, args=(args,))
