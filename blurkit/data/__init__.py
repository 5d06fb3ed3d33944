"""Datasets: layouts, lists, pairs, prepared shards, and the crops used for training."""
