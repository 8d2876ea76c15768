"""Where the processes of a run's steps come from: a copy of the run itself, with all that it has imported.

Dagster's multiprocess executor has ``forkserver`` for that, which starts a second Python and imports the definitions
again: as much CPU as the run itself took to start.
"""

import os
import socket
from multiprocessing import connection, forkserver, resource_tracker, util


def fork_from_here() -> None:
    """Let ``forkserver`` processes be forked from a copy of this one. Early: other threads are not copied.

    The copy takes the place of the server that ``multiprocessing`` would start, and ends as that does: with the last
    process that came from it. If it is killed, ``multiprocessing`` starts its own, as it would have.
    """
    resource_tracker.ensure_running()
    alive_r, alive_w = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        address = connection.arbitrary_address("AF_UNIX")
        listener.bind(address)
        if not util.is_abstract_socket_namespace(address):
            os.chmod(address, 0o600)
        listener.listen()
        pid = os.fork()
        if not pid:
            try:
                os.close(alive_w)
                forkserver.main(listener.fileno(), alive_r, preload=[])
            finally:
                os._exit(0)
    os.close(alive_r)
    server = forkserver._forkserver
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, alive_w, pid
