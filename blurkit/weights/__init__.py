"""The small weights that ship with blurkit, and the tools that make such files."""
