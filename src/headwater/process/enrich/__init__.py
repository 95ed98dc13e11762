"""Enrich: what a value of an event tells, worked out once per distinct value.

Third step of process (decode → dedupe → **enrich** → identify …).  Every step here is a pure function from a
few texts to a row of outputs, and knows neither events nor batches; `distinct.Memo` runs it over the distinct
values of a column and remembers the results in a bounded cache.  Only time is different: almost every event
has its own, so `time.canonical` is vector arithmetic in Arrow.

==============  ==================================================  ======================================
module          from                                                to
==============  ==================================================  ======================================
`user_agent`    User-Agent, client hints (`client_hints`, `bots`)   ua_*, os_*, device_*, is_bot, bot_reason
`page`          page URL                                            page_*, utm_*, click_id, click_id_kind
`referrer`      referrer URL, page host                             referrer_*, search_engine, search_term
`language`      navigator locale, Accept-Language                   language, locale
`geo`           client address, MMDB files of the user              country … as_organisation
`time`          receive time, timestamp, sentAt                     timestamp, original_timestamp, sent_at …
==============  ==================================================  ======================================

Each of the first four has `memo(settings) -> distinct.Memo`; `Memo.apply(column, …)` gives a dict of plain
Arrow arrays, of the length and order of the batch.  `geo.Geo` wraps its memo, since the files behind it
change.

What holds everywhere:

* **A value never fails a batch.**  No text raises; a function that raises all the same gives a row of nulls,
  and `Memo.failed` and `Memo.trouble` say so.
* **An output depends on its own inputs only**, never on the other events of the batch or on what the cache
  holds (INV-STATE: batch borders do not show).  Geo depends on the database of the moment too, as said in
  `geo`.
* **Nothing here reads a clock or a random source**; a moment comes as an argument.
* **Bounds**: each cache has `entries_max`, each input `chars_max` (what is longer is cut), each output of a
  URL `value_chars_max`.

Cost on one core of the reference machine, 10 k rows and 3,000 distinct values: benchmarks/enrich.py.
"""
