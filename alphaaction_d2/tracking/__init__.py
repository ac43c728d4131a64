"""Identities of persons: who of this keyframe is who of the keyframes before.

Built on `detectron2.tracking`: `cfg.TRACKER_HEADS.TRACKER_NAME` names a tracker in detectron2's
`TRACKER_HEADS_REGISTRY`, and importing this package registers :class:`PersonTracker` there.
"""

from .linking import IdentityLinker, build_identity_linker, first_new_id, link_dataset
from .tracker import PersonTracker
