"""Run a folder of reference numbers through the modules that train and test, and say how near.

One line a case says how near the worst array is to what is tolerated; a table at the end sums up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .backbone import check_backbone
from .boxes import check_extension, check_jitter, check_operations
from .case import GoldenCase
from .frames import check_pipeline, check_pixels, check_tables
from .heads import check_pooling, check_testing, check_training
from .interaction import check_block, check_structure
from .losses import check_losses, check_scores
from .memory import check_read
from .training import check_recipe, check_trace

# What a case is, by something that only its kind has; the first that fits decides.
KINDS: list[tuple[str, Callable[[GoldenCase], None], Callable[[GoldenCase], bool]]] = [
    ("tables", check_tables, lambda x: "temporal_crop" in x.json),
    ("recipe", check_recipe, lambda x: "per_parameter" in x.json),
    ("training trace", check_trace, lambda x: "in/order_movie_ids" in x),
    ("memory read", check_read, lambda x: "in/cur_features" in x),
    ("block", check_block, lambda x: "in/others" in x),
    ("structure", check_structure, lambda x: "in/person" in x and "ia_structure" in x.config),
    ("losses", check_losses, lambda x: "in/logits" in x and "in/labels" in x),
    ("scores", check_scores, lambda x: "in/logits" in x),
    ("backbone", check_backbone, lambda x: "parameter_names" in x.config),
    ("head, training", check_training, lambda x: "in/slow" in x and "in/proposals" in x),
    ("head, testing", check_testing, lambda x: "in/slow" in x and "in/boxes" in x),
    ("pooling", check_pooling, lambda x: "in/features" in x and "in/counts" in x),
    ("box extension", check_extension, lambda x: "scales" in x.config),
    ("box jitter", check_jitter, lambda x: "in/uniform_draws" in x),
    ("box operations", check_operations, lambda x: "in/xywh" in x),
    ("pixels", check_pixels, lambda x: "in/jitter_shifts" in x),
    ("frames and boxes", check_pipeline, lambda x: "in/frames" in x),
]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Check this project against reference numbers of the released AIA model."
    )
    parser.add_argument("folder", metavar="DIR", help="the folder with the cases, or with data/")
    parser.add_argument(
        "--cases", nargs="+", metavar="NAME", help="only these, or those that begin like this"
    )
    return parser.parse_args(arguments)


def find_cases(folder: Path, names: list[str] | None = None) -> list[GoldenCase]:
    """The cases of a folder, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or no such case in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if (folder / "data").is_dir():
        folder = folder / "data"
    found = sorted({path.stem for pattern in ("*.json", "*.npz") for path in folder.glob(pattern)})
    if names is not None:
        found = [name for name in found if name.startswith(tuple(names))]
    if not found:
        which = " of these names" if names else ""
        raise FileNotFoundError(f"{folder}: no cases{which} (NAME.json, most with a NAME.npz)")
    return [GoldenCase(folder, name) for name in found]


def check_case(case: GoldenCase) -> str:
    """Run one case; returns its kind. What goes wrong is in the case."""
    kind, check = next(
        ((kind, check) for kind, check, fits in KINDS if fits(case)), ("unknown", None)
    )
    if check is None:
        case.fail("the case", "is of no known kind")
        return kind
    try:
        check(case)
    except Exception as error:  # the other cases still count
        case.fail("the case", f"could not be run: {type(error).__name__}: {error}")
    case.finish()
    return kind


def lines(case: GoldenCase, kind: str) -> Iterator[str]:
    """One line on a case, and one for everything that is wrong or different."""
    compared, worst = len(case.comparisons), case.worst
    nearest = "exact"
    if not case.ok:
        nearest = f"{sum(not x.ok for x in case.comparisons.values())} of them wrong"
    elif worst.share:
        nearest = f"worst {worst.key} at {worst.share:.1%} of the tolerance"
    yield f"{'ok  ' if case.ok else 'FAIL'} {case.name}: {kind}, {compared} compared, {nearest}"
    for x in case.comparisons.values():
        if not x.ok:
            yield f"       {x.key} {x.problem or f'differs by {x.share:.3g} times the tolerance'}"
    for note in case.notes:
        yield f"       differs by intent: {note}"
    for reason in sorted(set(case.skipped.values())):
        keys = ", ".join(key for key, why in case.skipped.items() if why == reason)
        yield f"       not compared: {keys}: {reason}"


def table(results: list[tuple[GoldenCase, str]]) -> Iterator[str]:
    """All cases side by side."""
    width = max(len(case.name) for case, _ in results)
    yield f"{'case':{width}}  {'kind':16}  arrays  worst   result"
    for case, kind in results:
        share = f"{case.worst.share:6.1%}" if case.worst.share < 100 else "     -"
        result = ("ok, differs by intent" if case.notes else "ok") if case.ok else "FAIL"
        yield f"{case.name:{width}}  {kind:16}  {len(case.comparisons):6d}  {share}  {result}"
    failed = sum(not case.ok for case, _ in results)
    yield f"{len(results)} cases, {failed} failed; worst: largest difference / tolerated difference"


def main(arguments: list[str] | None = None) -> int:
    """Check the cases of a folder; the exit code is 1 when one fails."""
    args = parse_arguments(arguments)
    torch.use_deterministic_algorithms(True, warn_only=True)
    results = []
    for case in find_cases(Path(args.folder), args.cases):
        kind = check_case(case)
        results.append((case, kind))
        for line in lines(case, kind):
            print(line, flush=True)
    print()
    for line in table(results):
        print(line)
    return 0 if all(case.ok for case, _ in results) else 1
