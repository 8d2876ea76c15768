"""While modules are imported the collector rests; afterwards it works again, and leaves alone what there was."""

import gc
import weakref

import pytest

from bigger_boat.resources.importing import importing


class Thing:
    itself: object


def test_the_collector_rests_and_works_again():
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    thing = Thing()
    thing.itself, gone = thing, weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None


def test_it_works_again_after_an_import_that_failed():
    with pytest.raises(ImportError), importing():
        import a_module_that_is_not_there  # noqa: F401
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
