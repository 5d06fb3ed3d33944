"""Datasets: layouts, lists, pairs, prepared shards, and the crops that training reads."""
