"""Egress of a guest that has no network card: its connections are carried by the host, one decision each.

The *relay* in the guest listens on the guest's loopback and hands every connection to the host as bytes, unread. The
*channel* tells the connections apart; the *broker* reads what is asked for, has it decided, dials, and pumps. This
package knows no policy engine: whether something may be done is asked of an :class:`Admission`.
"""

from cedarbox.egress.admission import CONNECTED, Admission, Connect, HttpRequest, Outcome
from cedarbox.egress.streams import ByteStream, StreamClosedError

__all__ = ["CONNECTED", "Admission", "ByteStream", "Connect", "HttpRequest", "Outcome", "StreamClosedError"]
