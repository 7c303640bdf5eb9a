"""Asks this host's machineid-sidecar whether an agent may go on. Standard library only; it needs no key.

    from machineid_sidecar import check, gated

    check()                      # returns on a yes, raises Denied or Undecided otherwise

    @gated                       # asks before each call; works for `async def` too
    def send_mail(to: str) -> None: ...

Every answer is fresh: the validation behind it began after the question. Whatever goes wrong is a no.
"""

from ._answer import Answer, Denied, NotAllowed, Undecided
from ._ask import socket_path
from ._gate import Gate, acheck, check, gated

__all__ = ["Answer", "Denied", "Gate", "NotAllowed", "Undecided", "acheck", "check", "gated", "socket_path"]
