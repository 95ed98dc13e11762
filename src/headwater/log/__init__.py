"""The road: hashed blocks of one writer, read below the durable watermark (protocol.md §2, §3, §17.1)."""
