"""The client: sends a portrait and a prompt to a server and returns the video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from consisid_runtime.client.caller import Caller, Image, Portrait, Server, require_no_frames
from consisid_runtime.client.stream import Stream
from consisid_runtime.client.threads import wait_for
from consisid_runtime.events import Event
from consisid_runtime.identity import Identity
from consisid_runtime.options import Options
from consisid_runtime.stages.estimate import Estimate
from consisid_runtime.video import Video
from consisid_runtime.wire import Extras


class Client:
    """A client of one server, or of several. Thread-safe; a context manager. Every call opens a connection of its own.

    While nothing answers at the address, a call tries to connect for up to ten seconds of its timeout; nothing else is
    tried twice. Over HTTP a client also works in forked processes; over gRPC it works in one process, the first that
    calls a server.

    Args:
        server: `grpc://host:port` or `http://host:port`, with TLS `grpcs://` or `https://` (an IPv6 address in
            brackets), or any `Transport`. Of several, a request goes to the one that is expected to have done it first,
            by the seconds that requests like those it works on took, and to the next one where it is busy or cannot be
            reached: nothing was computed then. `Busy` or `ServerUnreachable` where none takes it.
        timeout: seconds for one whole call, from resolving the server's name to the last byte of the video, above 0 and
            at most 10⁶. The server is told, and ends its work then.
        token: what the server wants as a bearer token. Default: the environment's `CONSISID_TOKEN`; empty for none.
            Without TLS it is sent to this machine's loopback addresses only.
        ca: PEM file of the certificate authorities whose servers are trusted. Default: those of the system.

    Raises `InvalidOption` for an invalid URL, timeout, token, or proxy in the environment, and for a token that would
    leave the machine unencrypted; `FileInaccessible`.
    """

    def __init__(
        self,
        server: Server | Sequence[Server],
        *,
        timeout: float = 600.0,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        self._caller = Caller(server, timeout, token, ca)

    def generate(
        self,
        image: Portrait,
        prompt: str,
        options: Options | None = None,
        *,
        raw_frames: bool = False,
        similarity: bool = False,
        urgent: bool = False,
        on_progress: Callable[[Event], object] | None = None,
    ) -> Video:
        """Generate one video on the server.

        Args:
            image: the portrait: a path, a file's bytes (JPEG, PNG, WebP, …), sent unchanged, or an `Identity`.
            prompt: what the video shows.
            options: see `Options`.
            raw_frames: also fetch the decoded frames; `video.frames` are then these instead of the MP4's.
            similarity: also compare up to eight frames' faces with the portrait, in `video.info["similarity"]`.
            urgent: before requests that are not, at a door; one that runs pauses.
            on_progress: is called with each event, in this thread; what it raises ends the request. Not with
                `raw_frames`, as an identity.

        Raises what `Pipeline.generate` raises, and `ServerUnreachable`, `CertificateRefused`, `Unauthenticated`,
        `Busy` (its `retry_after` says when to send the request again), `ServerDied`, `ServerTimeout`, `ServerError`,
        `ClientClosed` or `ForkedProcess`.
        """
        if on_progress is None:
            extras = Extras(raw_frames=raw_frames, similarity=similarity)
            return wait_for(self._caller.generate(image, prompt, options, extras, urgent=urgent))
        require_no_frames(raw_frames=raw_frames)
        return self.stream(image, prompt, options, similarity=similarity, urgent=urgent).video(on_progress)

    def stream(
        self,
        image: Portrait,
        prompt: str,
        options: Options | None = None,
        *,
        similarity: bool = False,
        urgent: bool = False,
        previews: bool = False,
        checkpoint_seconds: float = 0.0,
        checkpoint: bytes | None = None,
    ) -> Stream:
        """Generate one video, and tell how far it is: an iterator of `Event`, and the `Video` as its last item.

        Args:
            similarity: as for `generate`.
            urgent: likewise.
            previews: with about two events a second, a JPEG of the first frame as far as it can be foreseen.
            checkpoint_seconds: a checkpoint with an event whenever this many seconds have passed; 0 for none.
            checkpoint: go on from this one, of the same image, prompt and options.

        `cancel` of the iterator, from any thread, ends the request at the server, as leaving its `with` block does.
        Raises as `generate`, while it is iterated; `CheckpointRefused`; after `cancel`, `RequestCancelled`.
        """
        extras = Extras(similarity=similarity, previews=previews, checkpoint_seconds=checkpoint_seconds)
        return Stream(self._caller.stream(image, prompt, options, extras, checkpoint, urgent=urgent))

    def estimate(self, options: Options | None = None) -> Estimate:
        """What a video should take at the server, and how long it would wait now; computes nothing, and never waits.

        Of several servers, at the one that a request would go to. Raises as `generate` for options that cannot be done
        or that the server's limits forbid.
        """
        return wait_for(self._caller.estimate(options))

    def identify(self, image: Image, options: Options | None = None) -> Identity:
        """Have the server read a face once, for any number of videos; it knows it for an hour, until it is restarted.

        Args:
            options: `face_index` and `keypoints` are used; the videos need the same.

        Raises as `generate`; `InvalidOption` for a client of several servers.
        """
        return wait_for(self._caller.identify(image, options))

    def forget(self, identity: Identity) -> None:
        """Have the server forget an identity now, and what it read of its photograph unless another stands for it.

        Idempotent. Raises as `identify`.
        """
        wait_for(self._caller.forget(identity))

    def trial(self) -> dict[str, Any]:
        """Have the server run a tiny request of nobody through every stage, of which it keeps and counts nothing.

        Returns "seconds" of each stage, and "bundle", its fingerprint. Raises as `identify`; `Busy` at once where the
        server works: then it is well, and was not disturbed.
        """
        return wait_for(self._caller.trial())

    def ready(self) -> bool:
        """Whether the server answers, within the timeout and ten seconds, and has loaded all its models.

        Raises `ClientClosed` or `ForkedProcess`.
        """
        return wait_for(self._caller.ready())

    def close(self) -> None:
        """End the calls in flight with `ClientClosed`, and refuse further ones. Idempotent, from any thread."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
