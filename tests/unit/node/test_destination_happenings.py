"""What a deliverer tells becomes a line and a counter."""

from headwater.node import happenings


def test_a_pause_names_its_code_and_reason():
    told = happenings.of_destination(
        "destination_paused", {"destination": "w", "code": "destination_missing", "reason": "gone"}
    )
    assert told == happenings.DestinationPaused(destination="w", code="destination_missing", reason="gone")


def test_an_advisory_of_any_name_is_told_with_its_code():
    told = happenings.of_destination("destination_went_back", {"destination": "w", "partitions": [1, 2]})
    assert told == happenings.DestinationAdvisory(destination="w", code="destination_went_back", partitions=2)
