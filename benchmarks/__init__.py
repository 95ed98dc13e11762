"""The benchmark suite of Headwater: named workloads, ratios in one interleaved run. See README.md."""
