"""The small weights that come with blurkit, and how such a file is packed."""
