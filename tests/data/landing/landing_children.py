"""Landings in processes of their own, forked from a server that has the imports done, so that a kill costs no start."""

import multiprocessing
import os
import signal

from landing_source import NOW

from bigger_boat.data.landing import land

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


def _land(source, root, tell, die_at_write):
    if die_at_write:
        writes = iter(range(1, die_at_write + 1))
        os.replace, os.fsync = (_dying(function, writes, die_at_write) for function in (os.replace, os.fsync))
    land(source, root, now=NOW, progress=lambda step, done, total: tell.send(step))


def _dying(function, writes, last):
    def call(*arguments):
        if next(writes) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return call
