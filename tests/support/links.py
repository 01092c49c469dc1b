"""The connection under a channel, for tests that look at what is sent."""

from wire.channel import FrameReader, FrameUser


class RecordedLink:
    """A `wire.channel.FrameLink`; ``frames`` are the kinds, numbers and payloads that were sent."""

    def __init__(self) -> None:
        self.is_writing_paused = False
        self.frames: list[tuple[int, int, bytes]] = []
        self.is_aborted = False
        self._asks_for_last = False

    @property
    def kinds(self) -> list[int]:
        return [kind for kind, _, _ in self.frames]

    def send(self, frame: bytes) -> None:
        FrameReader().feed(frame, lambda *parts: self.frames.append(parts))

    def send_last(self) -> None:
        self._asks_for_last = True

    def end_turn(self, user: FrameUser) -> None:
        """Send what `send_last` has asked for."""
        if self._asks_for_last:
            self._asks_for_last = False
            self.send(user.last_frame())

    def close(self) -> None:
        self.is_aborted = True

    def abort(self) -> None:
        self.is_aborted = True
