import numpy as np

from headwater.dialects.registry import DIALECTS
from headwater.event.record import Head, stamp_type
from headwater.process.gather import Gatherer, Parts, with_context

HEAD = Head("web", "segment", "POST", "/v1/batch")


def gathered(body, count, refused=()):
    gatherer = Gatherer(DIALECTS.__getitem__)
    parts = Parts([])
    stamp = np.zeros(1, stamp_type())
    stamp["events"] = count
    gatherer._record(HEAD, body, stamp[0], np.array(refused, np.uint32), parts)
    return parts


def test_a_context_that_cannot_be_read_makes_dead_letters_of_its_batch():
    context = b'{"a":1e999}'
    parts = gathered(b'{"batch":[{"type":"track","event":"x"},{}],"context":' + context + b"}", 2)
    assert len(parts.lines) == 2 and set(parts.refused) == {0, 1}
    assert parts.refused[0][0].startswith("the request could not be split into events: ")
    assert context in bytes(parts.lines[0])


def test_items_that_the_door_refused_keep_reason_and_field():
    parts = gathered(b'{"batch":[{"type":"track","event":"x"},{"type":"track"},7]}', 3, [1, 2])
    assert set(parts.refused) == {1, 2}
    assert parts.refused[1] == ("expected the event's name; a track call must have one", "event")


def test_an_event_keeps_what_it_says_itself():
    assert with_context([b'{"context":{"a":1}}', b"7", b"{}"], b'{"a":2,"b":3}') == [
        b'{"context":{"a":1,"b":3}}',
        b"7",
        b'{"context":{"a":2,"b":3}}',
    ]
