"""Landings in processes of their own, forked from a server that has the imports done, so that a kill costs no start."""

import multiprocessing
import os
import resource
import signal

from landing_source import NOW

from bigger_boat.data.landing import land
from bigger_boat.data.landing_forget import forget_sessions
from bigger_boat.errors import LandingError

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["bigger_boat.data.landing"])


def start_landing(source, root, die_at_write=0):
    """Return the process and a pipe with what progress says. If told to, it kills itself at that fsync or rename."""
    hear, tell = processes.Pipe(duplex=False)
    process = processes.Process(target=_land, args=(source, root, tell, die_at_write))
    process.start()
    tell.close()
    return process, hear


def die_landing(source, root, die_at_write):
    process, _ = start_landing(source, root, die_at_write)
    process.join(60)
    return process.exitcode


def die_forgetting(root, sessions, die_at_write):
    """Forget in a process that kills itself at that fsync, rename or removal; return its exit code."""
    process = processes.Process(target=_forget, args=(root, sessions, die_at_write))
    process.start()
    process.join(60)
    return process.exitcode


def land_with_little_room(source, root, largest_bytes):
    """Land in a process that may write no file larger than that; return what the LandingError says, or "landed"."""
    hear, tell = processes.Pipe(duplex=False)
    process = processes.Process(target=_land_with_little_room, args=(source, root, tell, largest_bytes))
    process.start()
    tell.close()
    said = hear.recv()
    process.join(60)
    return said


def _land_with_little_room(source, root, tell, largest_bytes):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))
    try:
        land(source, root, now=NOW)
        tell.send("landed")
    except LandingError as error:
        tell.send(str(error))


def _land(source, root, tell, die_at_write):
    if die_at_write:
        writes = iter(range(1, die_at_write + 1))
        os.replace, os.fsync = (_dying(function, writes, die_at_write) for function in (os.replace, os.fsync))
    land(source, root, now=NOW, progress=lambda step, done, total: tell.send(step))


def _forget(root, sessions, die_at_write):
    writes = iter(range(1, die_at_write + 1))
    names = ("replace", "fsync", "unlink")
    os.replace, os.fsync, os.unlink = (_dying(getattr(os, name), writes, die_at_write) for name in names)
    forget_sessions(root, sessions, NOW)


def _dying(function, writes, last):
    def call(*arguments, **options):
        if next(writes) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call
