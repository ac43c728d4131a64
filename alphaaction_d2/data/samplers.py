"""Which worker tests which keyframes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detectron2.utils import comm
from torch.utils.data import Sampler


def shard_videos(video_ids: Sequence[str], num_shards: int) -> list[range]:
    """Split keyframes, ordered by video, into consecutive shards of whole videos of about equal
    size.

    All keyframes of a video are neighbours. Some shards get nothing when there are fewer videos;
    together their ranges of positions cover every one once, in order.
    """
    total = len(video_ids)
    starts = [i for i in range(total) if i == 0 or video_ids[i] != video_ids[i - 1]] + [total]
    # A shard begins with the first video that starts at or after its even share.
    cuts = [min(s for s in starts if s * num_shards >= total * k) for k in range(num_shards)]
    return [range(begin, end) for begin, end in zip(cuts, [*cuts[1:], total])]


class WholeVideoSampler(Sampler[int]):
    """This worker's keyframes, in time order: memory needs the videos whole."""

    def __init__(self, video_ids: Sequence[str]) -> None:
        self.positions = shard_videos(video_ids, comm.get_world_size())[comm.get_rank()]

    def __iter__(self) -> Iterator[int]:
        yield from self.positions

    def __len__(self) -> int:
        return len(self.positions)
