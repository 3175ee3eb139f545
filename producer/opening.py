"""The opening: which era the agent works in, and that spool, source and stream continue what was said in it."""

from __future__ import annotations

import logging
import time

from producer import failpoints
from producer.continuity import Continuity, Found, check_continues, check_history, check_proof
from producer.durable_end import DurableEnd
from producer.era import Lease
from producer.kinesis import KinesisStream, StreamIdentity, check_same
from producer.source import Source
from producer.spool import Spool

log = logging.getLogger(__name__)


class Opening:
    """Raises what ends the agent where continuity broke; what only could not be reached may be tried again.

    new_era, prove_continuity: what the operator said at this start. Each holds once.
    """

    def __init__(
        self,
        source_name: str,
        spool: Spool,
        source: Source,
        stream: KinesisStream,
        lease: Lease,
        *,
        new_era: bool = False,
        prove_continuity: bool = False,
    ) -> None:
        self._source_name = source_name
        self._spool = spool
        self._source = source
        self._stream = stream
        self._lease = lease
        self._new_era = new_era
        self._prove_continuity = prove_continuity

    def open(self) -> int:
        """The era, with the lease held and the source prepared for it."""
        stream = self._stream.identity()
        known_era = int(self._spool.meta("era") or 0)
        held = self._lease.claim(known_era, self._new_era)
        self._new_era = False
        self._source.check()
        if held.era > known_era:
            self._spool.declare_damaged(self._source_name, leave_out=True)
            self._spool.open_era(held.era, None, stream=str(stream))
            log.info("era opened", extra={"era": held.era})
        end = self._spool.durable_end()
        if end is None:
            self._begin(held.era, stream)
        else:
            self._go_on(end, stream)
        return held.era

    def check_source(self, end: DurableEnd) -> Found:
        """What a connection to the source would find now. Raises ContinuityBroken where it does not continue `end`."""
        found = self._source.find()
        check_continues(self._known(end), found)
        confirmed = found.slot_flushed
        if found.current_lsn is not None and confirmed is not None and confirmed < end.flushed:
            check_history(end.last, confirmed, self._source.last_resent(end.lsn))
        return found

    def check_stream(self) -> None:
        """Raises ContinuityBroken where the stream is another one now."""
        check_same(self._spool.meta("stream"), self._stream.identity())

    def _begin(self, era: int, stream: StreamIdentity) -> None:
        """Start from wherever the slot stands: the snapshots of this era hold everything before it."""
        self._source.prepare()
        failpoints.reach("slot.created")
        found = self._source.find()
        flushed = found.slot_flushed or 0
        at = time.time_ns() // 1000
        self._spool.open_era(
            era,
            DurableEnd(era, flushed - 1, flushed, at),
            stream=str(stream),
            system_id=found.system_id,
            timeline=str(found.timeline),
        )

    def _go_on(self, end: DurableEnd, stream: StreamIdentity) -> None:
        check_same(self._spool.meta("stream"), stream)
        if self._prove_continuity:
            self._prove(end)
        found = self.check_source(end)
        self._spool.give_back_damaged(found.slot_flushed or 0)
        self._source.prepare()

    def _prove(self, end: DurableEnd) -> None:
        """Take the source for the one that the spool knows, if its own history shows that it is."""
        found = self._source.find()
        check_proof(self._known(end), found)
        self._spool.note(timeline=str(found.timeline))
        self._prove_continuity = False
        log.info("continuity proven", extra={"timeline": found.timeline})

    def _known(self, end: DurableEnd) -> Continuity:
        return Continuity(
            system_id=self._spool.meta("system_id") or "",
            timeline=int(self._spool.meta("timeline") or 0),
            flushed=end.flushed,
        )
