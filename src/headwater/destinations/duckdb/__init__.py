"""DuckDB as a destination (class T), and SQL for readers in the process that holds its file."""
