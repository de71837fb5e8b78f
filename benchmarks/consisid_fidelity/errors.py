"""The errors that only the judging of videos raises; they never cross a server."""

from __future__ import annotations

from consisid_runtime.errors import Unusable


class CollectionInvalid(Unusable):
    """A folder of videos to judge, or its table, cannot be used."""

    code = "COLLECTION_INVALID"
    remedy = "Correct the row or the file that the message names."


class VideoUnreadable(CollectionInvalid):
    """A file in the collection is not a video that FFmpeg can read."""

    code = "VIDEO_UNREADABLE"
    remedy = "Replace the file that the message names, or remove its row."
