"""Codecs by family of formats: what one library reads and writes."""
