"""Identities of persons: who of this keyframe is who of the keyframes before.

Built on `detectron2.tracking`: `cfg.TRACKER_HEADS.TRACKER_NAME` names a tracker in detectron2's
`TRACKER_HEADS_REGISTRY`, where `tracker.py` registers `PersonTracker`. What it does is in
`tracks.py`, which needs neither detectron2 nor torch.
"""
