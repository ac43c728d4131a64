"""The 80 atomic visual actions of AVA, in the order of their ids.

Names are those of `ava_action_list_v2.2.pbtxt`, and of v2.1. The evaluation counts 60 of them (the
lists `..._for_activitynet_2018.pbtxt` and `..._2019.pbtxt`); networks score all 80.
"""

from __future__ import annotations

from dataclasses import replace

from ...formats.ava import LabelMap

POSE_ACTIONS = (
    "bend/bow (at the waist)",
    "crawl",
    "crouch/kneel",
    "dance",
    "fall down",
    "get up",
    "jump/leap",
    "lie/sleep",
    "martial art",
    "run/jog",
    "sit",
    "stand",
    "swim",
    "walk",
)
OBJECT_ACTIONS = (
    "answer phone",
    "brush teeth",
    "carry/hold (an object)",
    "catch (an object)",
    "chop",
    "climb (e.g., a mountain)",
    "clink glass",
    "close (e.g., a door, a box)",
    "cook",
    "cut",
    "dig",
    "dress/put on clothing",
    "drink",
    "drive (e.g., a car, a truck)",
    "eat",
    "enter",
    "exit",
    "extract",
    "fishing",
    "hit (an object)",
    "kick (an object)",
    "lift/pick up",
    "listen (e.g., to music)",
    "open (e.g., a window, a car door)",
    "paint",
    "play board game",
    "play musical instrument",
    "play with pets",
    "point to (an object)",
    "press",
    "pull (an object)",
    "push (an object)",
    "put down",
    "read",
    "ride (e.g., a bike, a car, a horse)",
    "row boat",
    "sail boat",
    "shoot",
    "shovel",
    "smoke",
    "stir",
    "take a photo",
    "text on/look at a cellphone",
    "throw",
    "touch (an object)",
    "turn (e.g., a screwdriver)",
    "watch (e.g., TV)",
    "work on a computer",
    "write",
)
PERSON_ACTIONS = (
    "fight/hit (a person)",
    "give/serve (an object) to (a person)",
    "grab (a person)",
    "hand clap",
    "hand shake",
    "hand wave",
    "hug (a person)",
    "kick (a person)",
    "kiss (a person)",
    "lift (a person)",
    "listen to (a person)",
    "play with kids",
    "push (another person)",
    "sing to (e.g., self, a person, a group)",
    "take (an object) from (a person)",
    "talk to (e.g., self, a person, a group)",
    "watch (a person)",
)
AVA_CLASSES = POSE_ACTIONS + OBJECT_ACTIONS + PERSON_ACTIONS
_GROUPS = (
    ("pose",) * len(POSE_ACTIONS)
    + ("object",) * len(OBJECT_ACTIONS)
    + ("person",) * len(PERSON_ACTIONS)
)


def with_groups(label_map: LabelMap) -> LabelMap:
    """Add AVA's groups to a label map of AVA's classes that names none (the 60-class list)."""
    if any(label_map.groups.values()) or not is_ava(label_map):
        return label_map
    return replace(label_map, groups={i: _GROUPS[i - 1] for i in label_map.names})


def is_ava(label_map: LabelMap) -> bool:
    """Whether every id has the name that AVA gives it."""
    return all(
        i <= len(AVA_CLASSES) and AVA_CLASSES[i - 1] == name for i, name in label_map.names.items()
    )
