"""Thin Prefect tasks, one file a verb. Names and shard numbers go in, facts come out, arrays stay in the store."""
