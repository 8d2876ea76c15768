"""A process whose forks come from a copy of it: they have what it has imported, also what has changed since on disk."""

import subprocess
import sys

SCRIPT = """
import multiprocessing, os, signal, sys
from pathlib import Path
from multiprocessing import forkserver
from bigger_boat.resources.step_server import fork_from_here

def tell(queue):
    queue.put((os.getppid(), getattr(sys, "planted", None)))

def asked():
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    child = context.Process(target=tell, args=(queue,))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    return found

if __name__ == "__main__":
    sys.planted = "by the run"
    fork_from_here()
    copy = forkserver._forkserver._forkserver_pid
    assert asked() == asked() == (copy, "by the run")
    os.kill(copy, signal.SIGKILL)
    os.waitid(os.P_PID, copy, os.WEXITED | os.WNOWAIT)
    parent, planted = asked()
    assert parent not in (copy, os.getpid()) and planted is None
    print("done")
"""


def test_forks_come_from_the_copy_and_from_multiprocessing_s_own_server_where_it_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (said.stdout, said.returncode) == ("done\n", 0), said.stderr
