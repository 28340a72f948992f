"""A TLS server that answers each connection with the next of some prepared bytes, whatever it is asked."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from broker.identity import Credential, save_credential
from compose.local.ports import LOOPBACK

Answer = bytes | Callable[[bytes], bytes]


@contextlib.contextmanager
def scripted_server(
    credential: Credential, trust_dir: Path, answers: Sequence[Answer]
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port, and the list that fills with what clients said; it ends a connection after its answer.

    Args:
        credential: the server's certificate and key.
        trust_dir: whom it believes; clients must show a certificate, proxies are welcome.
        answers: one for each connection, in order; the last one serves all that follow. A function is given what
            the client said.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    context.load_verify_locations(capath=str(trust_dir))
    with tempfile.TemporaryDirectory() as folder:
        save_credential(credential, Path(folder) / "server.pem")
        context.load_cert_chain(Path(folder) / "server.pem")
    said: list[bytes] = []
    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context, list(answers), said), daemon=True)
        thread.start()
        yield listener.getsockname()[1], said
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _serve(listener: socket.socket, context: ssl.SSLContext, answers: list[Answer], said: list[bytes]) -> None:
    while True:
        try:
            plain, _address = listener.accept()
        except OSError:
            return
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as wire:
            wire.settimeout(10)
            heard = wire.recv(65536)
            if heard == b"0":
                heard += wire.recv(65536)
            said.append(heard)
            wire.sendall(answer if isinstance(answer, bytes) else answer(heard))
            wire.settimeout(0.1)  # not every client says goodbye
            with contextlib.suppress(OSError):
                wire.unwrap()
