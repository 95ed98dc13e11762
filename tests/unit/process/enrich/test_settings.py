import msgspec
import pytest

from headwater.process.enrich.settings import EnrichSettings


def test_defaults_need_no_configuration():
    assert msgspec.json.decode(b"{}", type=EnrichSettings) == EnrichSettings()


@pytest.mark.parametrize(
    "text", [b'{"pages":{}}', b'{"page":{"entires_max":1}}', b'{"referrer":{"kinds":{"a":"b"}}}']
)
def test_unknown_keys_and_kinds_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=EnrichSettings)


def test_settings_survive_a_round_trip():
    text = b'{"page":{"click_ids":["x"]},"referrer":{"engines":{"a.b":["q"]},"kinds":{"c.d":"email"}}}'
    chosen = msgspec.json.decode(text, type=EnrichSettings)
    assert msgspec.json.decode(msgspec.json.encode(chosen), type=EnrichSettings) == chosen
