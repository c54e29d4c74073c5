"""Thin Prefect tasks, one file a verb. Names and shard numbers go in, small facts come out, arrays stay in the store."""
