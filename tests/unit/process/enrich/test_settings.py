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


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(msgspec.ValidationError, match=r"bot_patterns: expected RE2 patterns, got '\(\('"):
        msgspec.json.decode(b'{"user_agent":{"bot_patterns":["(("]}}', type=EnrichSettings)
    chosen = msgspec.json.decode(b'{"user_agent":{"bot_patterns":["Our(Spider|Bot)"]}}', type=EnrichSettings)
    assert chosen.user_agent.bot_patterns == ("Our(Spider|Bot)",)


def test_settings_survive_a_round_trip():
    text = b'{"page":{"click_ids":["x"]},"referrer":{"engines":{"a.b":["q"]},"kinds":{"c.d":"email"}}}'
    chosen = msgspec.json.decode(text, type=EnrichSettings)
    assert msgspec.json.decode(msgspec.json.encode(chosen), type=EnrichSettings) == chosen
