"""Sharding: a plan, supervised workers that write its shards, and the ledger that makes a set of them."""
